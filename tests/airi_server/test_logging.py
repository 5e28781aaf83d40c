"""Log lines: one JSON object each, with the facts given and no secret."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import orjson
import pytest

from airi_server.kernel import context
from airi_server.logging import JSONFormatter


def written(message="Something happened", level=logging.INFO, error=None, **facts):
    record = logging.getLogger("airi.test").makeRecord(
        "airi.test", level, __file__, 1, message, (), error, extra=facts
    )
    record.created = datetime(2026, 3, 1, 12, 0, 7, 45_600, UTC).timestamp()
    return JSONFormatter().format(record)


def test_a_line_has_its_time_level_logger_message_and_facts_and_nothing_else():
    assert orjson.loads(written(user="mio", flux=3, path=None)) == {
        "at": "2026-03-01T12:00:07.045+00:00",
        "level": "info",
        "logger": "airi.test",
        "message": "Something happened",
        "user": "mio",
        "flux": 3,
        "path": None,
    }


def test_lines_of_other_seconds_have_their_own():
    record = logging.makeLogRecord({"created": 1_800_000_000.0})
    later = logging.makeLogRecord({"created": 1_800_000_001.999})

    at = [orjson.loads(JSONFormatter().format(each))["at"] for each in (record, later)]

    assert at == ["2027-01-15T08:00:00.000+00:00", "2027-01-15T08:00:01.999+00:00"]


def test_a_line_of_a_request_names_it():
    token = context.request_id.set("0198-request")
    try:
        assert orjson.loads(written())["request_id"] == "0198-request"
    finally:
        context.request_id.reset(token)


def test_an_exception_is_one_line_with_its_traceback():
    reason = ValueError("the reason")

    line = written(error=(ValueError, reason, None))

    assert "\n" not in line
    assert "ValueError: the reason" in orjson.loads(line)["exception"]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("sk-or-v1-0123456789abcdef", "sk-or-v1-…"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer …"),
        ("BEARER abc.def", "BEARER …"),
        ('Bearer "abc.def"', 'Bearer "…"'),
        ("nothing of the kind", "nothing of the kind"),
    ],
)
def test_what_looks_like_a_secret_is_cut_off(said, kept):
    assert orjson.loads(written(said=said))["said"] == kept


class TestLineOfAnExchange:
    @pytest.fixture
    def line(self):
        line = context.LogLine()
        token = context.line.set(line)
        yield line
        context.line.reset(token)

    def test_takes_facts_until_it_is_written(self, line):
        assert context.add_to_line({"flux": 3})
        line.is_written = True

        assert not context.add_to_line({"flux": 4})
        assert line.facts == {"flux": 3}

    def test_is_not_there_outside_of_one(self):
        assert not context.add_to_line({"flux": 3})
