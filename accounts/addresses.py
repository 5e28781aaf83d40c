"""Client addresses: networks, and who is really calling when proxies stand in between. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from airi_server.kernel.settled import Settled

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_HOPS: Final = 32
MAX_TEXT: Final = 64
MAPPED_BITS: Final = 96  # ::ffff:0:0/96 holds IPv4 inside IPv6 (RFC 4291, 2.5.5.2)
TRANSLATED: Final = IPv6Network("64:ff9b::/96")
"""IPv4 clients behind a translator (RFC 6052): all of them lie in one /64."""
SITE_BITS: Final = 64
"""What one IPv6 client has to itself, and may call from any part of (RFC 6177)."""


def parse_address(text: str) -> Address | None:
    """Return the address, an IPv4-mapped one as IPv4; None for anything else."""
    if len(text) > MAX_TEXT:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def parse_network(text: str) -> Network | None:
    """Return the network of an address or CIDR, host bits dropped; None for anything else."""
    if len(text) > MAX_TEXT:
        return None
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return None
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None:
        return network
    return ip_network((mapped, network.prefixlen - MAPPED_BITS), strict=False)


def is_listed(address: str, networks: Iterable[Network]) -> bool:
    """Tell whether `address` lies in one of `networks`; what cannot be read lies in none."""
    parsed = parse_address(address)
    return parsed is not None and any(parsed in network for network in networks)


def caller_of(address: str) -> str:
    """Return what the calls from an address are counted under.

    An IPv4 address, also one inside an IPv6 address, counts for itself; an IPv6 address for its
    /64, because whoever has one has all of it. What cannot be read counts as it is written.
    """
    parsed = parse_address(address)
    if not isinstance(parsed, IPv6Address):
        return address if parsed is None else str(parsed)
    if parsed in TRANSLATED:
        return str(IPv4Address(int(parsed) & 0xFFFF_FFFF))
    return str(IPv6Network((int(parsed), SITE_BITS), strict=False))


def trusted_proxies() -> tuple[Network, ...]:
    """Return `settings.TRUSTED_PROXIES`, parsed.

    Raises:
        ImproperlyConfigured: An entry is neither an address nor a network.
    """
    return _settled_proxies()


def _parsed() -> tuple[Network, ...]:
    networks = []
    for text in settings.TRUSTED_PROXIES:
        network = parse_network(text)
        if network is None:
            raise ImproperlyConfigured(f"TRUSTED_PROXIES: {text!r} is not an address or network")
        networks.append(network)
    return tuple(networks)


_settled_proxies: Final = Settled(_parsed)


def of_scope(scope: dict[str, Any]) -> str:
    """Return the client's address of an ASGI scope: the peer's, or what our own proxies say."""
    peer = scope.get("client") or ("",)
    forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return client_of(peer=peer[0], forwarded=b",".join(forwarded).decode("latin-1"))


def client_of(*, peer: str, forwarded: str) -> str:
    """Return the nearest address that none of our proxies owns.

    `forwarded` is `X-Forwarded-For`: every proxy appends the peer it saw, so only the entries
    right of the first stranger are ours to believe. An entry that cannot be read ends the walk at
    the hop before it, and so does a chain longer than `MAX_HOPS`.
    """
    proxies = trusted_proxies()
    if not proxies or not is_listed(peer, proxies):
        return peer
    nearest = peer
    for hop in reversed(forwarded.rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
        address = parse_address(_without_port(hop.strip()))
        if address is None:
            break
        nearest = str(address)
        if not is_listed(nearest, proxies):
            break
    return nearest


def _without_port(hop: str) -> str:
    """Return the address of `1.2.3.4:5`, `[::1]` and `[::1]:5`, which some proxies write."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
