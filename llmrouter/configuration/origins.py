"""Origins (RFC 6454): scheme, host and port, which is what a provider key is entered for."""

from __future__ import annotations

from typing import Final

from yarl import URL

DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
NOWHERE: Final = ""
"""The origin of what is no address: nothing is sealed for it, and nothing can be sent there."""


def of(url: str) -> str:
    """Return the origin of a URL, its port spelled out; `NOWHERE` if nothing can be sent there.

    It is read as the client reads it that connects (`llmrouter/upstream/client.py`): two parsers
    that disagree about a host would let a key be checked for one and sent to another.
    """
    try:
        read = URL(url)
        host, port = read.raw_host, read.explicit_port
    except ValueError:
        return NOWHERE
    if read.scheme not in DEFAULT_PORTS or not host or read.user is not None:
        return NOWHERE
    shown = f"[{host}]" if ":" in host else host
    return f"{read.scheme}://{shown}:{DEFAULT_PORTS[read.scheme] if port is None else port}"
