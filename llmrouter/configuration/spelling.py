"""How names, addresses and keys may be spelled where somebody writes them.

A configuration that is stored stays readable whatever it holds: `fields` says what can be read,
this module what can be written, and `faults` looks only at what was not there before.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final
from urllib.parse import urlsplit

from llmrouter.configuration import characters, origins, tree

RESERVED: Final = frozenset({"auto"})
"""Names that a request may say and no model may have: `auto` means the default model."""
ENDPOINTS: Final = (
    "/chat/completions",
    "/completions",
    "/embeddings",
    "/responses",
    "/messages",
    "/moderations",
    "/rerank",
    "/audio/speech",
    "/audio/transcriptions",
    "/audio/translations",
    "/images/generations",
    "/images/edits",
)
"""What a request adds to a base URL. The longer of two that end alike stands first."""
QUOTES: Final = frozenset({'""', "''", "``", "“”", "„“", "\u2018\u2019", "«»"})
MAX_KEY_LENGTH: Final = 8192
_HOST: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?", re.IGNORECASE)

Judge = Callable[[str], str]
Spelled = tuple[str, str, Judge]
"""A path, the text that stands there, and what judges it."""


def name(value: str) -> str:
    """Return a name of ours, unless people could not tell it from another.

    Raises:
        ValueError: The sentence says what is wrong with it.
    """
    upstream_model(value)
    composed = unicodedata.normalize("NFC", value)
    for position, (here, right) in enumerate(zip(value, composed, strict=False), start=1):
        if here != right:
            what = f"character {position} is to be {characters.name_of(right)}"
            raise ValueError(f"must be in Unicode normal form C (NFC): {what}")
    return value


def model_name(value: str) -> str:
    """Return a public model name.

    Raises:
        ValueError: As `name`, or it is reserved.
    """
    return default_model(name(value))


def default_model(value: str) -> str:
    """Return the name of the model that `auto` is to mean.

    Raises:
        ValueError: It is `auto` itself, in any spelling.
    """
    if unicodedata.normalize("NFKC", value).strip().casefold() in RESERVED:
        raise ValueError(f"“{value}” is reserved: it means the default model of a request")
    return value


def upstream_model(value: str) -> str:
    """Return what a provider calls a model: their spelling, so long as it can be seen.

    Raises:
        ValueError: The sentence names the character that cannot.
    """
    unseen = characters.invisible_in(value)
    if unseen:
        raise ValueError(f"must not hold invisible characters: {unseen}")
    if value != value.strip():
        raise ValueError("must not begin or end with a blank")
    return value


def base_url(value: str) -> str:
    """Return an address to which a request adds what it calls.

    Raises:
        ValueError: A request is added to it already, or nobody can be called there.
    """
    parts = urlsplit(value)
    path = parts.path.rstrip("/")
    endpoint = next((each for each in ENDPOINTS if path.lower().endswith(each)), None)
    if endpoint:
        right = f"{parts.scheme}://{parts.netloc}{path[: -len(endpoint)].rstrip('/')}"
        raise ValueError(f"ends in {endpoint}, which requests add themselves: enter {right}")
    return address(value)


def address(value: str) -> str:
    """Return a URL that leads to a host.

    Raises:
        ValueError: The host is none, or the port is 0.
    """
    parts = urlsplit(value)
    host = parts.hostname or ""
    is_host = _is_ipv6(host) if "[" in parts.netloc else _HOST.fullmatch(host)
    if not is_host or parts.port == 0 or origins.of(value) == origins.NOWHERE:
        raise ValueError("must name a host, and a port above 0 if it names one")
    return value


def key(plaintext: str) -> str:
    """Return a provider's key, if an HTTP header can carry it.

    Raises:
        ValueError: An HTTP library would refuse it, and quote it in its error; this does not.
    """
    if not plaintext:
        raise ValueError("The key is empty.")
    if len(plaintext) > MAX_KEY_LENGTH:
        raise ValueError(f"The key is longer than {MAX_KEY_LENGTH} characters.")
    bare = plaintext.strip()
    if bare[:1] + bare[-1:] in QUOTES and len(bare) > 1:
        raise ValueError("The key stands in quotation marks: enter it without them.")
    if re.match(r"bearer\s", bare, re.IGNORECASE):
        raise ValueError("Enter the key alone, without “Bearer”.")
    for position, character in enumerate(plaintext, start=1):
        if not "!" <= character <= "~":
            where = f"{_said(character)} at character {position}"
            raise ValueError(f"The key must be printable ASCII without white space: {where}.")
    return plaintext


def faults(config: tree.Tree, *known: tree.Tree) -> list[dict[str, str]]:
    """Return path and message of everything in a tree that may not be written.

    What one of the `known` trees says of the same model is not judged again.
    """
    found = []
    for surface, alias, model in tree.models(config):
        there = {text for other in known for text in words_of(other, surface, alias)}
        path = f"{surface}.models.{alias}"
        found += judged(
            ((path + at, text, judge) for at, text, judge in _texts(alias, model)), there
        )
    return found


def judged(texts: Iterable[Spelled], there: Collection[str]) -> list[dict[str, str]]:
    """Return path and message of each text at fault, but for those that are there already."""
    found = []
    for path, text, judge in texts:
        try:
            if text not in there:
                judge(text)
        except ValueError as fault:
            found.append({"path": path, "message": str(fault)})
    return found


def words_of(config: tree.Tree, surface: str, alias: str) -> set[str]:
    """Return every text that a tree says of one model; nothing if it has no such model."""
    models = config.llm.models if surface == tree.LLM else config.tts.models
    model = models.get(alias)
    return {text for _, text, _ in _texts(alias, model)} if model else set()


def _texts(alias: str, model: tree.Model) -> Iterator[Spelled]:
    yield "", alias, model_name
    for at, upstream in enumerate(model.upstreams):
        path = f".upstreams.{at}"
        yield f"{path}.baseURL", upstream.base_url, base_url
        if upstream.id:
            yield f"{path}.id", upstream.id, name
        if isinstance(upstream, tree.LLMUpstream) and upstream.override_model:
            yield f"{path}.overrideModel", upstream.override_model, upstream_model
        for index, each in enumerate(upstream.keys):
            yield f"{path}.keys.{index}.id", each.id, name


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _said(character: str) -> str:
    """Say what stands in a key that cannot: letters may be a part of a secret."""
    if unicodedata.category(character)[0] in "LN":
        return "there is a letter or digit that is not"
    return f"it holds {characters.name_of(character)}"
