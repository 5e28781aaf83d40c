"""CHECK conditions, short as PostgreSQL stores them.

Every statement that writes a row reads the stored conditions of its table again, so their size is
time: those of a hot table are a tenth and more of what a settlement costs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import BooleanField, F, Func


def one_of(column: str, values: Iterable[str]) -> Func:
    """The column is one of these words; stored as one constant, where `IN` stores each."""
    words = ",".join(values)
    return Func(
        F(column),
        template=f"%(expressions)s = ANY ('{{{words}}}'::text[])",
        output_field=BooleanField(),
    )


def agree(one: Any, other: Any) -> Func:
    """Both conditions hold, or neither."""
    return Func(
        one,
        other,
        template="(%(expressions)s)",
        arg_joiner=") = (",
        output_field=BooleanField(),
    )
