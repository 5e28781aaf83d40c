"""Field types of the router's configuration, each with its bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue

from llmrouter.configuration import characters

MAX_OUTPUT_TOKENS: Final = 10_000_000
MAX_SAFE_INTEGER: Final = 2**53
Provider = Literal["azure", "dashscope-cosyvoice", "volcengine", "stepfun", "openai"]
MaxTokensField = Literal["max_tokens", "max_completion_tokens"]
Tokenizer = Literal["", "o200k_base", "cl100k_base"]
Addition = Literal["max_tokens", "stream_options"]


def url_of(*schemes: str) -> Callable[[str], str]:
    """Return a check for a base URL: absolute, and nothing but scheme, host, port and path.

    The scheme comes back in small letters.
    """

    def check(value: str) -> str:
        parts = urlsplit(value)
        _ = parts.port  # raises ValueError if it is not a port
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(f"must be an absolute {' or '.join(schemes)} URL")
        if parts.username is not None or parts.password is not None or "@" in parts.netloc:
            raise ValueError("must not carry a user name or a password")
        if "?" in value or "#" in value:
            raise ValueError("must not carry a query or a fragment")
        return parts.scheme + value[len(parts.scheme) :]

    return check


def _ascii(*, but_for: str = "") -> Callable[[Any], Any]:
    """Return a check that names the first character which is not visible ASCII."""

    def check(value: Any) -> Any:
        for position, character in enumerate(value if isinstance(value, str) else "", start=1):
            if not ("!" <= character <= "~" or character in but_for):
                what = f"{characters.name_of(character)} at character {position}"
                raise ValueError(f"must be ASCII{'' if but_for else ' without blanks'}: not {what}")
        return value

    return check


def _header_template(value: str) -> str:
    if value.count("{KEY}") != 1:
        raise ValueError("must contain {KEY} exactly once")
    return value


def _storable(value: dict[str, Any], depth: int = 4) -> dict[str, Any]:
    """Refuse what PostgreSQL's jsonb or another JSON reader would not give back as it was."""
    for item in _leaves(value, depth):
        if isinstance(item, str) and "\0" in item:
            raise ValueError("must not contain NUL characters")
        if isinstance(item, int | float) and abs(item) > MAX_SAFE_INTEGER:
            raise ValueError("numbers must be within ±2^53")
    return value


def _leaves(value: Any, depth: int) -> list[Any]:
    if not isinstance(value, dict | list):
        return [value]
    if depth == 0:
        raise ValueError("must not be nested more than four deep")
    items = [*value, *value.values()] if isinstance(value, dict) else value
    return [leaf for item in items for leaf in _leaves(item, depth - 1)]


# Printable, because these words travel in headers, metrics and logs; `|` separates them in the AAD.
Name = Annotated[str, Field(pattern=r"^[^|\x00-\x1f\x7f]{1,200}$")]
URLText = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,500}$"), BeforeValidator(_ascii())]
HTTPURL = Annotated[URLText, AfterValidator(url_of("http", "https"))]
SocketURL = Annotated[URLText, AfterValidator(url_of("ws", "wss"))]
UpstreamModel = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,200}$")]
HeaderTemplate = Annotated[
    str,
    Field(pattern=r"^[\x20-\x7e]{1,200}$"),
    BeforeValidator(_ascii(but_for=" ")),
    AfterValidator(_header_template),
]
Ciphertext = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,16384}$"), BeforeValidator(_ascii())]
Code = Annotated[int, Field(ge=300, le=599)]
Codes = Annotated[tuple[Code, ...], Field(max_length=64)]
AttemptMs = Annotated[int, Field(ge=1, le=600_000)]
ChainMs = Annotated[int, Field(ge=1, le=3_600_000)]
Tokens = Annotated[int, Field(ge=1, le=MAX_OUTPUT_TOKENS)]
FieldName = Annotated[str, Field(pattern=r"^([a-z0-9_.-]{1,64}|\*)$")]
Rank = Annotated[int, Field(ge=0, le=1_000_000)]
Weight = Annotated[int, Field(ge=1, le=1_000_000)]
Parameters = Annotated[dict[str, JsonValue], AfterValidator(_storable)]
