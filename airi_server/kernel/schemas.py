"""Shapes every router shares."""

from __future__ import annotations

from typing import Any

from ninja import Schema


class ErrorBody(Schema):
    """A refusal: a code for programs, a sentence for people, and sometimes where and why."""

    error: str
    message: str
    details: Any = None
