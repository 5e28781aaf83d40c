"""Usage: every provider's report in one normal form, taken field by field. Pure.

Raw fields are merged over an answer and derived once at its end. A field that is missing, or makes
no sense, is estimated alone; a report is believed as far as it is plausible.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, NoReturn

import orjson

from billing.pricing import MAX_TOKENS, TokenSource, Usage
from llmrouter.gateway import estimates

MAX_DIGITS: Final = 16
MAX_CHOICES: Final = 128
_ODD: Final = (TokenSource.COMPLETED, TokenSource.BOUNDED)
"""Where the report is kept, because it is not charged as it stands."""
INSIDE_MARGIN: Final = (1.05, 64)
OUTSIDE_MARGIN: Final = (4.0, 1_024)
"""Factor and addition to what was asked for; the second where reasoning is beside the length."""
_ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "input": ("prompt_tokens", "input_tokens"),
    "output": ("completion_tokens", "output_tokens"),
    "total": ("total_tokens",),
    "cached": ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens"),
    "written": ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens"),
    "reasoning": ("reasoning_tokens",),
}
_NORMAL: Final = {alias: name for name, aliases in _ALIASES.items() for alias in aliases}
_DETAILS: Final = (
    "prompt_tokens_details", "input_tokens_details",
    "completion_tokens_details", "output_tokens_details",
)  # fmt: skip
_USUAL: Final = frozenset(
    {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details",
     "completion_tokens_details"}
)  # fmt: skip
_PLAIN_DETAILS: Final[Mapping[str, frozenset[str]]] = {
    "cached_tokens": frozenset({"cached_tokens", "audio_tokens"}),
    "reasoning_tokens": frozenset(
        {"reasoning_tokens", "audio_tokens", "accepted_prediction_tokens",
         "rejected_prediction_tokens"}
    ),
}  # fmt: skip
"""By the count that is read of some details: what may stand beside it there."""
_DETAILED: Final = frozenset({"cached", "written", "reasoning"})
"""What details break down; what else stands there is about parts that are priced alike."""


def decode(text: bytes) -> Any:
    """Read JSON as clients do: also halves of surrogate pairs and numbers beyond a double.

    Raises:
        ValueError: It is no JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            return json.loads(text, parse_constant=_refuse_constant)
        except RecursionError as too_deep:
            raise ValueError("nested too deeply") from too_deep


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


class TokenCounts(NamedTuple):
    """A report in its normal form; None where it says nothing that makes sense.

    `input` contains `cached` and `written`, `output` contains `reasoning`. `is_beside` says that
    the provider counts reasoning beside the length that was asked for.
    """

    input: int | None = None
    cached: int = 0
    written: int = 0
    output: int | None = None
    reasoning: int = 0
    is_beside: bool = False


NOTHING_SAID: Final = TokenCounts()


class Reports:
    """Every usage object of one answer, merged: the highest of each raw field counts.

    A stream may report twice, in halves, or a running count in every chunk. A report that stands in
    a choice is that choice's own: their outputs add up.
    """

    __slots__ = ("_of_choices", "_raw", "seen")

    def __init__(self) -> None:
        self.seen: dict[str, Any] | None = None
        self._raw: dict[str, int] | None = None  # made when a second report comes, or an odd one
        self._of_choices: dict[int, dict[str, int]] | None = None

    def add(self, answer: Mapping[str, Any]) -> None:
        """Take what an answer, or a chunk, reports, wherever it does."""
        report = answer.get("usage")
        if report and isinstance(report, dict):
            self._take(report)
        if "x_groq" in answer and isinstance(answer["x_groq"], dict):
            report = answer["x_groq"].get("usage")
            if report and isinstance(report, dict):
                self._take(report)
        choices = answer.get("choices")
        if isinstance(choices, list):
            for position, choice in enumerate(choices):
                if isinstance(choice, dict) and "usage" in choice and position < MAX_CHOICES:
                    self._take_of_choice(position, choice)

    @property
    def total(self) -> int | None:
        """The sum of both sides, where that is what was reported."""
        return self._merged().get("total_tokens")

    def counts(self, *, has_text: bool) -> TokenCounts:
        """Return the normal form of all that was reported.

        Args:
            has_text: Whether anything was generated: zeros beside it are no counts.
        """
        if self._raw is None and self.seen is not None:
            ordinary = _ordinary(self.seen)
            if ordinary is not None:
                return ordinary
        if raw := self._merged():
            return _derived(raw, has_text=has_text)
        return self._sum(has_text=has_text) if self._of_choices else NOTHING_SAID

    def _sum(self, *, has_text: bool) -> TokenCounts:
        of_choices = (self._of_choices or {}).values()
        each = [_derived(raw, has_text=has_text) for raw in of_choices]
        outputs = [counts.output for counts in each if counts.output is not None]
        return TokenCounts(
            input=max((counts.input for counts in each if counts.input is not None), default=None),
            cached=max(counts.cached for counts in each),
            written=max(counts.written for counts in each),
            output=sum(outputs) if outputs else None,
            reasoning=sum(counts.reasoning for counts in each),
            is_beside=any(counts.is_beside for counts in each),
        )

    def _take(self, report: dict[str, Any]) -> None:
        if self.seen is not None:
            _merge(self._merged(), report)
        self.seen = report

    def _take_of_choice(self, position: int, choice: dict[str, Any]) -> None:
        report, index = choice["usage"], choice.get("index")
        if isinstance(report, dict):
            place = index if type(index) is int and 0 <= index < MAX_CHOICES else position
            if self._of_choices is None:
                self._of_choices = {}
            _merge(self._of_choices.setdefault(place, {}), report)
            if not self._merged():  # else the answer has a report of its own, which counts
                self.seen = report

    def _merged(self) -> dict[str, int]:
        if self._raw is None:
            self._raw = {}
            if self.seen is not None:
                _merge(self._raw, self.seen)
        return self._raw


def _ordinary(report: dict[str, Any]) -> TokenCounts | None:
    """Read the report that nearly every answer has: both sides, and their sum."""
    prompt, output = report.get("prompt_tokens"), report.get("completion_tokens")
    if not (type(prompt) is int and type(output) is int and prompt > 0 and output > 0):
        return None
    if report.get("total_tokens") != prompt + output or not _USUAL.issuperset(report):
        return None
    if prompt > MAX_TOKENS or output > MAX_TOKENS:
        return None
    if len(report) == 3:  # no details
        return TokenCounts(prompt, 0, 0, output)
    cached = _detail(report.get("prompt_tokens_details"), "cached_tokens")
    reasoning = _detail(report.get("completion_tokens_details"), "reasoning_tokens")
    if not (0 <= cached <= prompt and 0 <= reasoning <= output):
        return None
    return TokenCounts(prompt, cached, 0, output, reasoning)


def _detail(details: Any, name: str) -> int:
    """Return one count of some details, -1 where there is more to them."""
    if not details:
        return 0
    if not isinstance(details, dict) or not _PLAIN_DETAILS[name].issuperset(details):
        return -1
    count = details.get(name, 0)
    return count if type(count) is int else -1


def _merge(into: dict[str, int], report: dict[str, Any]) -> None:
    for name, value in report.items():
        if name in _DETAILS and isinstance(value, dict):
            for detail, count in value.items():
                if _NORMAL.get(detail) in _DETAILED:
                    _keep(into, detail, count)
        elif name in _NORMAL:
            _keep(into, name, value)


def _keep(into: dict[str, int], name: str, value: Any) -> None:
    count = _count(value)
    if count is not None:
        into[name] = max(count, into.get(name, 0))


def _count(value: Any) -> int | None:
    """Return a count that was written as an integer, a whole float or digits."""
    if isinstance(value, str):
        is_number = value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS
        value = int(value) if is_number else None
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None


def _derived(raw: Mapping[str, int], *, has_text: bool) -> TokenCounts:
    said: dict[str, int] = {}
    for name, count in raw.items():
        normal = _NORMAL[name]
        said[normal] = max(count, said.get(normal, 0))
    total = said.get("total")
    cached, written = said.get("cached", 0), said.get("written", 0)
    reasoning = said.get("reasoning", 0)
    prompt, output = said.get("input"), said.get("output")
    if has_text:
        # Zeros beside text are no counts, unless the total says that all of it was the prompt.
        prompt = prompt or None
        output = output if output or (total and total == prompt) else None
    if prompt is not None and _is_beside_caches(raw, said):
        prompt += cached + written
    is_beside = False
    if prompt is not None and total is not None and total >= prompt:
        # Where reasoning is counted beside the completion, the total has it.
        is_beside = output is not None and total - prompt > output
        output = max(output or 0, total - prompt)
    elif output is not None and total is not None and prompt is None and total >= output:
        prompt = total - output or None
    if has_text and output == 0 and total != prompt:
        output = None
    cached = min(cached, prompt or 0)
    return TokenCounts(
        input=prompt,
        cached=cached,
        written=min(written, (prompt or 0) - cached),
        output=output,
        reasoning=min(reasoning, output or 0),
        is_beside=is_beside,
    )


def _is_beside_caches(raw: Mapping[str, int], said: Mapping[str, int]) -> bool:
    """Whether cached and written tokens are counted beside the input, as Anthropic's dialect does.

    Where there is a total it decides; else the names do, and no part is larger than its whole.
    """
    caches = said.get("cached", 0) + said.get("written", 0)
    prompt = said["input"]
    if not caches:
        return False
    if "total" in said and "output" in said:
        extra = said["total"] - prompt - said["output"]
        return extra in (caches, caches + said.get("reasoning", 0))
    is_theirs = "cache_read_input_tokens" in raw or "cache_creation_input_tokens" in raw
    return caches > prompt or (is_theirs and "prompt_tokens" not in raw)


class Asked(NamedTuple):
    """What a report is held against: the prompt as estimated, and the most either side may be.

    `longest` is the output that was asked for, of all choices together.
    """

    prompt_estimate: int
    prompt_most: int
    longest: int


class Reading(NamedTuple):
    """What is charged; `raw` is the report where it is not charged as it stands."""

    usage: Usage
    raw: dict[str, Any] | None = None


def read(
    reports: Reports,
    asked: Asked,
    *,
    has_text: bool,
    generated: Callable[[], int],
    counted: Usage | None = None,
) -> Reading:
    """Return what an answer used.

    Args:
        reports: What its provider said of it.
        asked: What is plausible.
        has_text: Whether anything was generated.
        generated: Counts what was, in bytes, as `recognition` does; only asked where the report has
            a gap.
        counted: What a real tokenizer counted, if one was asked.

    Returns:
        Usage whose `source` is `none`, and which costs nothing, if nothing was generated.
    """
    counts = reports.counts(has_text=has_text)
    prompt, output = counts.input, counts.output
    if not has_text and not output:
        prompt = min(prompt or 0, asked.prompt_most)
        return Reading(Usage(prompt, 0, min(counts.cached, prompt), TokenSource.NONE))
    if prompt is not None and output is not None:
        usage = Usage(prompt, output, counts.cached)
    else:
        usage = _completed(reports, counts, asked, counted or _estimated(asked, generated))
    bounded = _bounded(usage, asked, counts)
    return Reading(bounded, reports.seen if bounded.source in _ODD else None)


def _estimated(asked: Asked, generated: Callable[[], int]) -> Usage:
    output = estimates.of_text(generated())
    return Usage(asked.prompt_estimate, output, source=TokenSource.ESTIMATED)


def _completed(reports: Reports, counts: TokenCounts, asked: Asked, guess: Usage) -> Usage:
    """Fill the gaps of a report, each alone, with what was guessed."""
    prompt, output = counts.input, counts.output
    if prompt is None and output is None:
        total = reports.total
        if not total:
            return guess
        # Only their sum was reported.
        output = min(guess.completion, total)
        return Usage(total - output, output, source=TokenSource.COMPLETED)
    prompt = guess.prompt if prompt is None else prompt
    output = guess.completion if output is None else output
    return Usage(prompt, output, min(counts.cached, prompt), TokenSource.COMPLETED)


def _bounded(usage: Usage, asked: Asked, counts: TokenCounts) -> Usage:
    if usage.prompt <= asked.prompt_most and usage.completion <= asked.longest:
        return usage
    if usage.source in (TokenSource.ESTIMATED, TokenSource.COUNTED):
        return usage
    factor, more = OUTSIDE_MARGIN if counts.is_beside else INSIDE_MARGIN
    longest = math.ceil(asked.longest * factor) + more
    prompt, output = min(usage.prompt, asked.prompt_most), min(usage.completion, longest)
    if (prompt, output) == (usage.prompt, usage.completion):
        return usage
    return Usage(prompt, output, min(usage.cached, prompt), TokenSource.BOUNDED)


def messages_of(choices: Any) -> list[Any]:
    """Return the messages of an answer's choices, or the deltas of a chunk's."""
    found = [c for c in choices if isinstance(c, dict)] if isinstance(choices, list) else []
    return [choice.get("message") or choice.get("delta") for choice in found]


def choices_in(payloads: Iterable[bytes]) -> Iterable[Any]:
    """Yield the choices of each chunk of a stream that can be read."""
    for payload in payloads:
        if payload.startswith(b"{"):
            try:
                yield decode(payload).get("choices")
            except ValueError:
                continue
