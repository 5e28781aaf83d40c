"""Hardening: which values of the settings are too weak, or trust too much, for a deployment.

`production` refuses to start with them, and `manage.py check --deploy` names them under any other
settings. What is said names the variable and never a secret's value.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import pairwise
from typing import Any, Final
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

Network = IPv4Network | IPv6Network
Reasons = Iterator[str]

SECRET_KEY_CHARACTERS: Final = 50
SECRET_KEY_BITS: Final = 128.0
MASTER_KEY_BYTES: Final = 32
MASTER_KEY_BITS: Final = 96.0
"""What 16 random bytes, written as hexadecimal digits, never fall below."""
WELL_KNOWN: Final = (
    "changeme", "changethis", "replaceme", "djangoinsecure", "secret", "placeholder", "example",
    "insecure", "password", "keyofthetests", "testkey", "donotuse", "letmein", "qwerty", "asdfgh",
    "123456", "abcdef",
)  # fmt: skip
"""What stands in documents and samples, without its punctuation; a random key has none of it."""

PRIVATE: Final = tuple(
    ip_network(text)
    for text in (
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8",
        "169.254.0.0/16", "::1/128", "fc00::/7", "fe80::/10",
    )
)  # fmt: skip
"""Networks whose addresses no stranger on the Internet can send from."""
SHORTEST_PUBLIC: Final = {4: 13, 6: 28}
"""The widest public networks that a content delivery network names as its own."""
IPV4_INSIDE: Final = (ip_network("::ffff:0:0/96"), ip_network("64:ff9b::/96"))
"""IPv6 networks whose last 32 bits are an IPv4 address: mapped, and NAT64."""

SECOND_LEVEL: Final = frozenset({"ac", "co", "com", "edu", "go", "gov", "ne", "net", "or", "org"})
"""With a country's code behind it such a name belongs to everybody, as `.co.uk` does."""
HOST: Final = re.compile(r"\.?([a-z0-9_-]+\.)*[a-z0-9_-]+|\[[0-9a-f:.]+\]", re.IGNORECASE)
OTHER_PATHS: Final = frozenset(
    {"api", "app", "docs", "favicon.ico", "livez", "readyz", "static", "v1", "ws"}
)
"""First segments of paths that are not the console's."""
LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class SettingFault:
    """One value that a deployment refuses, in words for whoever set it."""

    variable: str
    wrong: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.variable} {self.wrong}. {self.remedy}"


@dataclass(frozen=True, slots=True)
class SettingRule:
    """Says what is wrong with the value of one setting, and what to do then.

    Args:
        reasons: Yields what is wrong with a value.
        remedy: A sentence for whoever set it.
        variable: The environment variable, where the setting is called otherwise.
    """

    reasons: Callable[[Any], Reasons]
    remedy: str
    variable: str = ""


def faults(settings: Mapping[str, Any]) -> list[SettingFault]:
    """Return every fault of the settings that are given; those that are not are not judged."""
    found = [
        SettingFault(rule.variable or name, wrong, rule.remedy)
        for name, rule in RULES.items()
        if name in settings
        for wrong in rule.reasons(settings[name])
    ]
    secrets = (settings.get("SECRET_KEY"), settings.get("LLM_ROUTER_MASTER_KEY"))
    if secrets[0] and secrets[0] == secrets[1]:
        found.append(SettingFault("SECRET_KEY", "is LLM_ROUTER_MASTER_KEY too", _MAKE_SECRET_KEY))
    return found


def insist(settings: Mapping[str, Any]) -> None:
    """Refuse to go on with these settings.

    Raises:
        ImproperlyConfigured: One line for each fault.
    """
    if found := faults(settings):
        raise ImproperlyConfigured("\n".join(str(fault) for fault in found))


def _secret_key(value: str) -> Reasons:
    if len(value) < SECRET_KEY_CHARACTERS:
        yield f"has {len(value)} characters; it needs {SECRET_KEY_CHARACTERS}"
    elif _is_well_known(value):
        yield "is, or contains, a placeholder that everybody knows"
    elif _is_guessable(value.encode(), bits=SECRET_KEY_BITS):
        yield "repeats itself or follows a pattern, so that it can be guessed"


def _master_key(value: str) -> Reasons:
    try:
        secret = base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        secret = b""
    if len(secret) != MASTER_KEY_BYTES:
        yield f"is not base64 of exactly {MASTER_KEY_BYTES} bytes"
    elif _is_well_known(secret.decode("latin-1")) or _is_phrase(secret):
        yield "is a text and not random bytes"
    elif _is_guessable(secret, bits=MASTER_KEY_BITS):
        yield "repeats itself or follows a pattern, so that it can be guessed"


def _is_well_known(text: str) -> bool:
    bare = re.sub(r"[^a-z0-9]", "", text.lower())
    return any(word in bare for word in WELL_KNOWN)


def _is_phrase(secret: bytes) -> bool:
    """Tell words from what a generator of passwords makes: they have spaces, or one case only."""
    if not secret.isascii() or not secret.decode().isprintable():
        return False
    return b" " in secret or (secret.isalpha() and (secret.islower() or secret.isupper()))


def _is_guessable(secret: bytes, *, bits: float) -> bool:
    """Tell whether a secret has less information than `bits`, as far as it shows."""
    steps = Counter((after - before) % 256 for before, after in pairwise(secret))
    counts_up = max(steps.values(), default=0) > len(secret) / 2
    return counts_up or _entropy(secret) * _period(secret) < bits


def _entropy(secret: bytes) -> float:
    """Return Shannon's entropy of one byte, from how often each occurs."""
    shares = [count / len(secret) for count in Counter(secret).values()]
    return -sum(share * math.log2(share) for share in shares)


def _period(secret: bytes) -> int:
    """Return the length of the shortest piece that makes the secret when it is repeated."""
    # A text begins again inside itself, doubled, just where its period ends.
    cut = next(
        (size for size in range(1, len(secret)) if secret.startswith(secret[size:])), len(secret)
    )
    return cut if cut <= len(secret) / 2 else len(secret)


def _allowed_hosts(hosts: Sequence[str]) -> Reasons:
    if not hosts:
        yield "is empty"
    for host in hosts:
        if host == "*":
            yield "contains *, which is every host"
        elif not HOST.fullmatch(host):
            yield f"contains {host!r}, which is not a host name"
        elif host.startswith(".") and _belongs_to_everybody(host):
            yield f"contains {host!r}, under which anybody can have a name"


def _belongs_to_everybody(suffix: str) -> bool:
    labels = suffix.strip(".").lower().split(".")
    is_country = len(labels) == 2 and len(labels[1]) == 2 and labels[0] in SECOND_LEVEL
    return len(labels) < 2 or is_country


def _trusted_proxies(texts: Iterable[str]) -> Reasons:
    for text in texts:
        try:
            network = _inner(ip_network(text, strict=False))
        except ValueError:
            yield f"contains {text!r}, which is neither an address nor a network"
            continue
        if network.prefixlen == 0:
            yield f"contains {text!r}, which is everybody"
        elif not _is_private(network) and network.prefixlen < SHORTEST_PUBLIC[network.version]:
            yield f"contains {text!r}, a public network wider than any proxy's"


def _inner(network: Network) -> Network:
    """Return the IPv4 network that an IPv6 one stands for, as the reader of addresses does."""
    for outer in IPV4_INSIDE:
        if isinstance(network, IPv6Network) and network.subnet_of(outer):  # type: ignore[arg-type]
            last = int(network.network_address) & 0xFFFF_FFFF
            return ip_network((last, network.prefixlen - 96))
    return network


def _is_private(network: Network) -> bool:
    return any(
        network.version == private.version and network.subnet_of(private)  # type: ignore[arg-type]
        for private in PRIVATE
    )


def _admin_path(path: str) -> Reasons:
    if not path.strip("./ "):
        yield "is empty, so that every page would be the console's"
    elif path.lower() in OTHER_PATHS:
        yield f"is {path!r}, which is another part's"
    elif not re.fullmatch(r"[\w.-]+", path, re.ASCII):
        yield "is not one segment of ASCII letters, digits, dots and dashes"


def _trusted_origins(origins: Iterable[str]) -> Reasons:
    for origin in origins:
        if "*" in origin:
            yield f"contains {origin!r}, which is a pattern, where only exact origins match"
    yield from _unsafe_origins(origins)


def _csrf_origins(origins: Iterable[str]) -> Reasons:
    for origin in origins:
        host = urlsplit(origin).hostname or ""
        if "*" in host and (not host.startswith("*.") or _belongs_to_everybody(host[1:])):
            yield f"contains {origin!r}, which anybody can have"
    yield from _unsafe_origins(origins)


def _unsafe_origins(origins: Iterable[str]) -> Reasons:
    for origin in origins:
        parts = urlsplit(origin)
        if not _is_safe_origin(parts.scheme, parts.hostname or ""):
            yield f"contains {origin!r}, whose pages can be changed on their way"


def _is_safe_origin(scheme: str, host: str) -> bool:
    """Tell whether a page comes unchanged: by https, from this machine, or installed as an app."""
    is_installed = scheme.endswith("-extension") or "." in scheme
    return scheme == "https" or host in LOCAL or host.endswith(".localhost") or is_installed


def _database(databases: Mapping[str, Mapping[str, Any]]) -> Reasons:
    password = re.sub(r"[^a-z]", "", str(databases["default"].get("PASSWORD") or "").lower())
    if password == "changeme":
        yield "has the password of the example"


_MAKE_SECRET_KEY: Final = (
    "Set one made by: python -c 'import secrets; print(secrets.token_urlsafe(48))'"
)
RULES: Final[dict[str, SettingRule]] = {
    "SECRET_KEY": SettingRule(_secret_key, _MAKE_SECRET_KEY),
    "LLM_ROUTER_MASTER_KEY": SettingRule(
        _master_key,
        "Make one with: openssl rand -base64 32. If provider keys are sealed under this one, move "
        "it to LLM_ROUTER_MASTER_KEY_PREVIOUS and run manage.py rotate-master-key",
    ),
    "ALLOWED_HOSTS": SettingRule(
        _allowed_hosts,
        "List the host names of this server, such as api.example.com, without scheme and port",
    ),
    "TRUSTED_PROXIES": SettingRule(
        _trusted_proxies, "List the addresses of your own proxies, such as 10.0.3.7/32"
    ),
    "ADMIN_PATH": SettingRule(_admin_path, "Choose one segment of a path, or unset it for 'admin'"),
    "ADDITIONAL_TRUSTED_ORIGINS": SettingRule(
        _trusted_origins, "List exact https origins, such as https://app.example.com"
    ),
    "CSRF_TRUSTED_ORIGINS": SettingRule(
        _csrf_origins, "List https origins, such as https://console.example.com"
    ),
    "DATABASES": SettingRule(
        _database, "Give the role another one, also in the URL", "DATABASE_URL"
    ),
}
