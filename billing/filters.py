"""What the lists of the books can be filtered by."""

from __future__ import annotations

from django.db.models import Q

from airi_server.pages.filters import ChoiceFilter, Selection, TextFilter
from billing.models import FluxTransaction, LLMRequestLog

State = LLMRequestLog.State
UNDER_WAY = "under-way"
MAX_BUSY = 10_000
"""Users with open requests that are looked at: more than the server can serve at once."""


class ModelFilter(TextFilter):
    title, names, column = "Model", ("model",), "model"


class OutcomeFilter(TextFilter):
    title, names, column = "Outcome", ("outcome",), "outcome"


class ErrorFilter(TextFilter):
    title, names, column = "Error code", ("error",), "error_code"


class StateFilter(ChoiceFilter):
    title, names = "State", ("state",)
    options = (*State.choices, (UNDER_WAY, "Open or streaming"))

    def choose(self, selection: Selection, value: str) -> None:
        if value in (State.OPEN, State.STREAMING, UNDER_WAY):
            # The index of what is under way is as small as the server is busy.
            selection.led &= Q(settled_at__isnull=True)
        if value != UNDER_WAY:
            selection.narrowed &= Q(state=value)


class UnbilledFilter(ChoiceFilter):
    title, names = "Unbilled", ("unbilled",)
    options = (("yes", "More than 0"),)

    def choose(self, selection: Selection, value: str) -> None:
        selection.led &= Q(unbilled__gt=0)
        selection.within = ("state", State.SETTLED)


class KindFilter(ChoiceFilter):
    title, names = "Kind", ("kind",)
    options = FluxTransaction.Kind.choices

    def choose(self, selection: Selection, value: str) -> None:
        if value == FluxTransaction.Kind.DEBIT:
            selection.narrowed &= Q(kind=value)
        else:
            selection.led &= ~Q(kind=FluxTransaction.Kind.DEBIT)
            selection.within = ("kind", value)


class FrozenFilter(ChoiceFilter):
    title, names = "Frozen", ("frozen",)
    options = (("yes", "Frozen"), ("no", "Not frozen"))

    def choose(self, selection: Selection, value: str) -> None:
        if value == "yes":
            selection.led &= Q(frozen=True)
        else:
            selection.narrowed &= Q(frozen=False)


class HoldsFilter(ChoiceFilter):
    title, names = "Holds", ("holds",)
    options = (("yes", "With open holds"),)

    def choose(self, selection: Selection, value: str) -> None:
        # Names rather than a subquery, which a planner may join by walking every account.
        under_way = LLMRequestLog.objects.filter(settled_at__isnull=True)
        users = under_way.order_by("user_id").values_list("user_id", flat=True).distinct()
        selection.led &= Q(user_id__in=list(users[:MAX_BUSY]))
