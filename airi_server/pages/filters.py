"""Filters that say whether an index answers them, and the keyset list that they narrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.contrib.admin import ListFilter, ShowFacets
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import ValidationError
from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from unfold import views as unfold

from airi_server.pages.operators import ReadOnlyAdmin
from airi_server.pages.paging import KeysetPage, KeysetQuery

if TYPE_CHECKING:
    BaseChangeList = ChangeList
else:
    BaseChangeList = unfold.ChangeList

AFTER: Final = "after"
BEFORE: Final = "before"
RANGES: Final = {
    "1h": ("Last hour", timedelta(hours=1)),
    "24h": ("Last 24 hours", timedelta(hours=24)),
    "7d": ("Last 7 days", timedelta(days=7)),
    "30d": ("Last 30 days", timedelta(days=30)),
}
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
"""Nothing of ours lies outside, and on either side there is room to add and subtract."""
MAX_TEXT: Final = 200


@dataclass(slots=True)
class Selection:
    """What an operator asked for: the sum of the filters and the search.

    Attributes:
        user_id: Whose rows; None is everybody's.
        begin, end: When; None is open.
        led: What the index of the list answers together with its order.
        sparse: What a small index of everybody's rows answers; they lie far apart, each on a page.
        within: A column and its value that an index begins with, if something has chosen one.
        narrowed: What has to be compared row by row.
        is_hopeless: The search named something that does not exist.
    """

    user_id: str | None = None
    begin: datetime | None = None
    end: datetime | None = None
    indexed: Q = field(default_factory=Q)
    sparse: Q = field(default_factory=Q)
    within: tuple[str, str] | None = None
    filtered: Q = field(default_factory=Q)
    is_empty: bool = False


class BookFilter(ListFilter):
    """One or more fields of the form beside a list. `names` are their parameters."""

    template = "console/filter.html"
    names: ClassVar[tuple[str, ...]]

    def __init__(
        self, request: HttpRequest, params: dict[str, list[str]], model: Any, model_admin: Any
    ) -> None:
        super().__init__(request, params, model, model_admin)
        # unfold's form carries along what is not named here: a cursor must not outlive its list.
        self.used_parameters = {AFTER: "", BEFORE: ""}
        for name in self.names:
            given = str(params.pop(name, [""])[-1]).replace("\x00", "").strip()
            self.used_parameters[name] = given[:MAX_TEXT]

    def value(self, name: str = "") -> str:
        return str(self.used_parameters.get(name or self.names[0], ""))

    def select(self, selection: Selection) -> None:
        """Add what was asked for to the selection."""
        raise NotImplementedError

    def inputs(self) -> Iterator[dict[str, Any]]:
        """Describe the fields: name, label, value, and choices or the kind of input."""
        raise NotImplementedError

    def has_output(self) -> bool:
        return True

    def expected_parameters(self) -> list[str | None]:
        return [*self.names]

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        yield from self.inputs()

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset


class TextFilter(BookFilter):
    """A whole value of one column; row by row, unless a subclass knows of an index."""

    column: ClassVar[str]

    def select(self, selection: Selection) -> None:
        if self.value():
            selection.filtered &= Q(**{self.column: self.value()})

    def inputs(self) -> Iterator[dict[str, Any]]:
        yield {
            "name": self.names[0],
            "label": self.title,
            "value": self.value(),
            "type": "text",
        }


class UserFilter(BookFilter):
    """One user's rows."""

    title = "User id"
    names = ("user",)

    def select(self, selection: Selection) -> None:
        if self.value():
            selection.user_id = self.value()

    inputs = TextFilter.inputs


class ChoiceFilter(BookFilter):
    """One of a few. What is chosen is looked for by `condition`."""

    options: ClassVar[Sequence[tuple[str, str]]]

    def select(self, selection: Selection) -> None:
        if self.value() in dict(self.options):
            self.choose(selection, self.value())

    def choose(self, selection: Selection, value: str) -> None:
        raise NotImplementedError

    def inputs(self) -> Iterator[dict[str, Any]]:
        yield {
            "name": self.names[0],
            "label": self.title,
            "value": self.value(),
            "choices": [("", "All"), *self.options],
        }


class TimeFilter(BookFilter):
    """A quick range up to now, or any range, in UTC."""

    title = "Time (UTC)"
    names = ("last", "from", "to")

    def select(self, selection: Selection) -> None:
        if self.value("last") in RANGES:
            selection.begin = timezone.now() - RANGES[self.value("last")][1]
        selection.begin = _instant(self.value("from")) or selection.begin
        selection.end = _instant(self.value("to"))

    def inputs(self) -> Iterator[dict[str, Any]]:
        choices = [("", "Any time"), *((name, text) for name, (text, _) in RANGES.items())]
        yield {
            "name": "last", "label": self.title, "value": self.value("last"), "choices": choices
        }  # fmt: skip
        for name, label in (("from", "From"), ("to", "Until")):
            value = self.value(name)
            yield {"name": name, "label": label, "value": value, "type": "datetime-local"}


class LinePaginator:
    """What unfold asks a paginator for, of a list that is not counted."""

    template_name = "console/line_pagination.html"
    per_page = 100

    def __init__(self, count: int) -> None:
        self.count = count


class LineChangeList(BaseChangeList):
    """A list that is read along an index: no count, no offset, no sorting by the wrong column."""

    model_admin: Any
    page: KeysetPage

    def get_queryset(
        self, request: HttpRequest, exclude_parameters: list[str | None] | None = None
    ) -> Any:
        for cursor in (AFTER, BEFORE):
            self.filter_params.pop(cursor, None)
        specs, self.has_filters, _left, _several, _active = self.get_filters(request)
        self.filter_specs = specs
        self.selection = Selection()
        for spec in specs:
            spec.select(self.selection)  # type: ignore[attr-defined]  # all are BookFilters
        self.model_admin.search(self.selection, self.query.replace("\x00", "").strip())
        self.line = self.model_admin.line(self.selection)
        if self.selection.is_empty:
            self.line = replace(self.line, rows=self.line.rows.none())
        self.has_active_filters = any(any(spec.used_parameters.values()) for spec in specs)
        names = [str(name) for spec in specs for name in spec.expected_parameters()]
        self.clear_all_filters_qs = self.get_query_string(remove=names)
        return self.line.rows

    def get_ordering(self, request: HttpRequest, queryset: Any) -> Any:
        return []

    def get_ordering_field_columns(self) -> dict[int, str]:  # type: ignore[override]
        return {}

    def get_results(self, request: HttpRequest) -> None:
        size = self.list_per_page
        after, before = self._cursor(request, AFTER), self._cursor(request, BEFORE)
        if before is not None:
            self.page = self.line.page_back(size, before=before)
        else:
            self.page = self.line.page(size, after=after)
        self.model_admin.complete(self.page.rows)
        self.result_list = self.page.rows
        self.result_count = len(self.page.rows)
        # The same number twice is how unfold's header is kept from calling it a total.
        self.full_result_count = self.result_count
        self.show_full_result_count = False
        self.show_admin_actions = self.can_show_all = self.multi_page = False
        self.paginator: Any = LinePaginator(self.result_count)

    @property
    def onward_url(self) -> str:
        return "" if self.page.onward is None else self._url(AFTER, self.page.onward)

    @property
    def back_url(self) -> str:
        return "" if self.page.back is None else self._url(BEFORE, self.page.back)

    @property
    def first_url(self) -> str:
        return self.get_query_string()

    @property
    def slice_text(self) -> str:
        return f"the next {self.line.slice:,} {self.opts.verbose_name_plural}"

    def _url(self, name: str, key: Any) -> str:
        return self.get_query_string({name: key})

    def _cursor(self, request: HttpRequest, name: str) -> Any:
        """Read a key out of the address; what cannot be one is no cursor."""
        given = request.GET.get(name, "").replace("\x00", "")
        if not given:
            return None
        key: Any = self.line.rows.model._meta.get_field(self.line.key)  # noqa: SLF001  public in all but name
        try:
            return key.clean(given, None)
        except (ValidationError, OverflowError):
            return None


class KeysetAdmin(ReadOnlyAdmin):
    """Evidence in a table too big to count or to sort."""

    list_per_page = 100
    show_facets = ShowFacets.NEVER
    sortable_by = ()
    search_help_text = ""
    empty_title: ClassVar[str] = ""
    empty_help: ClassVar[str] = ""

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return LineChangeList

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """Leave out conditions that are not on offer: no index would answer them."""
        offered = {name for each in self.list_filter for name in getattr(each, "names", ())}
        return lookup in offered | {AFTER, BEFORE}

    def search(self, selection: Selection, term: str) -> None:
        """Add what was typed into the search box to the selection."""
        raise NotImplementedError

    def line(self, selection: Selection) -> KeysetQuery:
        """Return the rows of a selection in the order of the index that leads to them."""
        raise NotImplementedError

    def complete(self, rows: Sequence[Any]) -> None:
        """Give each row of a page what its table does not know."""


def _instant(given: str) -> datetime | None:
    try:
        found = parse_datetime(given)
    except ValueError:
        return None
    if found is None:
        return None
    aware = found if found.tzinfo else found.replace(tzinfo=UTC)
    return min(max(aware, EARLIEST), LATEST)
