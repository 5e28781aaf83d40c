"""Who this process is: the name on its open requests, its database sessions and its telemetry."""

from __future__ import annotations

import os
from typing import Final

from django.conf import settings

from airi_server.kernel.ids import nanoid

ID: Final[str] = f"{settings.INSTANCE_ID}.{os.getpid()}" if settings.INSTANCE_ID else nanoid()
APPLICATION_NAME: Final = f"airi {ID}"[:63]
"""PostgreSQL knows which instances live: those with a session of this name."""
