"""Host validation (`ALLOWED_HOSTS`), the same for every way that a request or a socket may take.

Django validates where something asks for the host, which the hot path never does, and logs a
traceback. Here a wrong host is one line and status 400. The probes are answered under any name,
because a load balancer asks by address.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponsePermanentRedirect
from django.http.request import split_domain_port, validate_host
from django.middleware import common

from airi_server.kernel.errors import InvalidRequest
from airi_server.kernel.settled import Settled
from airi_server.web.bodies import Scope

logger = logging.getLogger(__name__)
PROBES: Final = ("/livez", "/readyz")
MAX_SHOWN: Final = 200
_allowed: Final = Settled(lambda: tuple(settings.ALLOWED_HOSTS))


class WrongHost(InvalidRequest):
    """The `Host` is none of `ALLOWED_HOSTS`, is there twice, or is no host at all."""


class CommonMiddleware(common.CommonMiddleware):
    """Django's, which asks for the host of each request, but not for that of a probe."""

    def process_request(self, request: HttpRequest) -> HttpResponsePermanentRedirect | None:
        return None if request.path in PROBES else super().process_request(request)


def refusal(scope: Scope) -> WrongHost | None:
    """Return why this request or socket is not served; None when its host is ours."""
    given = [value for name, value in scope["headers"] if name == b"host"]
    # As Django has it: two are one that is wrong, and without any it is where we listen.
    host = given[0] if len(given) == 1 else b",".join(given) or _own_address(scope)
    if _is_ours(host, _allowed()) or scope["path"] in PROBES:
        return None
    return refuse(host.decode("latin-1"), scope["path"])


def refuse(host: str, path: str) -> WrongHost:
    """Log a wrong host, and return what its client is told, which does not repeat it."""
    logger.warning("Wrong host", extra={"host": _shown(host), "path": _shown(path)})
    return WrongHost("This server has another host name.")


@lru_cache(maxsize=64)
def _is_ours(host: bytes, allowed: tuple[str, ...]) -> bool:
    domain, _port = split_domain_port(host.decode("latin-1"))
    return bool(domain) and validate_host(domain, allowed)


def _own_address(scope: Scope) -> bytes:
    return str((scope.get("server") or ("",))[0]).encode()


def _shown(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text[:MAX_SHOWN])
