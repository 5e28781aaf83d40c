"""What `./run` says once it serves: everything a newcomer needs, ready to paste."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from airi_server.launch.demo import Demo

_BLOCK: Final = """
AIRI server is ready: {url}

  curl -N {url}/v1/chat/completions \\
    -H 'Authorization: Bearer {key}' \\
    -H 'Content-Type: application/json' \\
    -d '{body}'

  Chat      {url}/app/chat#key={key}
  Admin     {url}/admin/
            {admin_email}  {admin_password}
  User      {user_email}  {user_password}
  Upstream  {upstream}
  Data      {data} (demo.json has all of the above)

Ctrl-C stops everything; what is kept is found again by the next start.
"""
_BODY: Final = (
    '{"model": %s, "stream": true, '
    '"messages": [{"role": "user", "content": "Hello! Say something nice."}]}'
)


def block(url: str, demo: Demo, model: str, upstream: str, *, data: Path) -> str:
    """Return it; `upstream` says where requests for the model go."""
    # What a shell would read as the end of the body is written otherwise.
    named = json.dumps(model).replace("'", "\\u0027")
    return _BLOCK.format(
        url=url,
        key=demo.api_key,
        body=_BODY % named,
        admin_email=demo.admin_email,
        admin_password=demo.admin_password,
        user_email=demo.user_email,
        user_password=demo.user_password,
        upstream=upstream,
        data=data,
    )
