"""Request heads: framing and target, as far as httptools leaves them undecided.

Where two readers of the same bytes could come to different ends of a request, or to different
hosts and paths, it is refused. `docs/http.md` has the decisions.
"""

from __future__ import annotations

from typing import Final

from airi_server.kernel.errors import DomainError, InvalidRequest

Headers = list[tuple[bytes, bytes]]
Found = dict[bytes, bytes]

MAX_BYTES: Final = 65_536
MAX_HEADERS: Final = 200
SINGLE: Final = frozenset(
    {
        b"authorization",
        b"content-length",
        b"content-type",
        b"expect",
        b"host",
        b"idempotency-key",
        b"transfer-encoding",
    }
)
"""What a request has once: of two, one reader would take the first and another the last."""
RARE: Final = frozenset({b"expect", b"transfer-encoding", b"upgrade"})
VERSIONS: Final = ("1.1", "1.0")
SCHEMES: Final = (b"http://", b"https://")


class ExpectationFailed(DomainError):
    """`Expect` names something other than `100-continue`."""

    code = "EXPECTATION_FAILED"
    status = 417


def is_too_large(target: bytes, headers: Headers) -> bool:
    """Return whether this is more than the head of a request may be, complete or not."""
    if len(headers) > MAX_HEADERS:
        return True
    return len(target) + sum(len(name) + len(value) + 4 for name, value in headers) > MAX_BYTES


def too_much() -> DomainError:
    """Return what is told to those whose head is none."""
    return InvalidRequest("The request is too slow or too long.")


def refuse_too_large(target: bytes, headers: Headers) -> None:
    """Refuse a head that is complete, and too large.

    Raises:
        InvalidRequest: It is.
    """
    if is_too_large(target, headers):
        raise too_much()


def check(method: bytes, version: str, headers: Headers) -> Found:
    """Return the headers by their names, the last of each.

    Raises:
        InvalidRequest: Nobody could say for sure where the request ends, or whom it is for.
        ExpectationFailed: It expects what we do not do.
    """
    found = dict(headers)
    if version not in VERSIONS:
        raise InvalidRequest("The request is not HTTP/1.1.")
    if len(found) != len(headers):
        _refuse_doubled(headers)
    if b"host" not in found and version == "1.1":
        raise InvalidRequest("The request has no Host.")
    if method == b"CONNECT":
        raise InvalidRequest("This server is no proxy.")
    if not RARE.isdisjoint(found):
        _check_rare(version, found)
    return found


def _refuse_doubled(headers: Headers) -> None:
    seen: set[bytes] = set()
    for name, _ in headers:
        if name in SINGLE and name in seen:
            raise InvalidRequest(f"The request has more than one {name.decode('latin-1')}.")
        seen.add(name)


def _check_rare(version: str, found: Found) -> None:
    coding = found.get(b"transfer-encoding")
    if coding is not None and (version != "1.1" or coding.lower() != b"chunked"):
        raise InvalidRequest("The only transfer coding is chunked, in HTTP/1.1.")
    expectation = found.get(b"expect", b"100-continue")
    if version == "1.1" and expectation.lower() != b"100-continue":
        raise ExpectationFailed("The only expectation is 100-continue.")


def is_handshake(method: bytes, version: str, headers: Headers) -> bool:
    """Return whether a request with `Upgrade` is a WebSocket handshake, and nothing else."""
    found = dict(headers)
    asked = [value.lower() for name, value in headers if name == b"upgrade"]
    has_body = b"transfer-encoding" in found or found.get(b"content-length", b"0") != b"0"
    return method == b"GET" and version == "1.1" and asked == [b"websocket"] and not has_body


def without_upgrade(method: bytes, target: bytes, version: str, headers: Headers) -> bytes:
    """Return the head as it would have been sent by a client that asks for no upgrade."""
    line = b"%s %s HTTP/%s" % (method, target, version.encode("ascii"))
    kept = [b"%s: %s" % header for header in headers if header[0] != b"upgrade"]
    return b"\r\n".join([line, *kept, b"", b""])


def target(given: bytes, found: Found) -> tuple[bytes, bytes]:
    """Return path and query, still encoded.

    A target with a scheme and a host is taken if `Host` names the same one.

    Raises:
        InvalidRequest: It is neither a path nor a URL of the host that the request is for.
    """
    if not given.startswith(b"/"):
        given = _path_of_url(given, found.get(b"host"))
    if b"#" in given:
        raise InvalidRequest("The target has a fragment.")
    path, _, query = given.partition(b"?")
    return path, query


def _path_of_url(url: bytes, host: bytes | None) -> bytes:
    for scheme in SCHEMES:
        if url[: len(scheme)].lower() == scheme:
            rest = url[len(scheme) :]
            authority = rest.partition(b"/")[0].partition(b"?")[0]
            if not authority or host is None or authority.lower() != host.lower():
                break
            path = rest[len(authority) :]
            return path if path.startswith(b"/") else b"/" + path
    raise InvalidRequest("The target is no path on this host.")
