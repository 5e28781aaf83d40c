"""Who this process is: the name on its open requests, its database sessions and its telemetry."""

from __future__ import annotations

from typing import Final

from django.conf import settings

from airi_server.kernel.ids import nanoid

# A restarted container has the same name and the same process ids as the one that died.
ID: Final[str] = f"{settings.INSTANCE_ID}.{nanoid(8)}" if settings.INSTANCE_ID else nanoid()
PREFIX: Final = "airi "
MAX_NAME: Final = 63
APPLICATION_NAME: Final = f"{PREFIX}{ID}"[:MAX_NAME]
"""PostgreSQL knows which instances live: those with a session of this name."""
