"""A list as a file: streamed a page at a time, so that neither memory nor a connection is held.

The generator is asynchronous, because Django under ASGI would collect a synchronous one before it
sends the first byte. Each page is a short read of its own, in a thread.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Final
from uuid import UUID

import orjson
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, StreamingHttpResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone

from airi_server.kernel.threads import in_thread
from airi_server.pages.filters import KeysetAdmin
from airi_server.pages.paging import KeysetQuery
from airi_server.runtime import audit

ROWS: Final = 1_000
"""Rows read and sent at a time."""
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?")
ORDER: Final = "order"
OLDEST: Final = "oldest"

Record = Mapping[str, Any]


class CSV:
    """Comma-separated, with a line of names. A cell that a spreadsheet would run is quoted."""

    content_type = "text/csv; charset=utf-8"
    end = b""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self.start = self._write([columns])

    def records(self, records: Sequence[Record], *, is_first: bool) -> bytes:
        return self._write([[_cell(record[n]) for n in self._columns] for record in records])

    def _write(self, rows: Sequence[Sequence[Any]]) -> bytes:
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        return text.getvalue().encode()


class JSON:
    """One array, an object to a line: a file that was cut short is no JSON, so nobody trusts it."""

    content_type = "application/json"
    start = b"["
    end = b"\n]\n"

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns

    def records(self, records: Sequence[Record], *, is_first: bool) -> bytes:
        lines = b",\n".join(orjson.dumps(record, default=str) for record in records)
        return (b"\n" if is_first else b",\n") + lines if lines else b""


FORMATS: Final[Mapping[str, type[CSV] | type[JSON]]] = {"csv": CSV, "json": JSON}


@dataclass(frozen=True, slots=True)
class Export:
    """The rows of a line as a file. `records` turns the rows of one page into what is written."""

    line: KeysetQuery
    writer: CSV | JSON
    records: Callable[[Sequence[Any]], Sequence[Record]]

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the file; whoever stops reading stops the reading of rows with it."""
        yield self.writer.start
        after, is_first = None, True
        while True:
            part, after, count = await in_thread(self._read)(after, is_first=is_first)
            if part:
                yield part
            is_first = is_first and not count
            if after is None:
                break
        yield self.writer.end

    def _read(self, after: Any, *, is_first: bool) -> tuple[bytes, Any, int]:
        page = self.line.page(ROWS, after=after)
        part = self.writer.records(self.records(page.rows), is_first=is_first)
        return part, page.onward, len(page.rows)


class ExportPages(KeysetAdmin):
    """Lists that can be taken away as files, by whoever has `export_permission`."""

    list_before_template = "console/exports.html"
    export_permission: ClassVar[str]
    export_columns: ClassVar[Sequence[str]]

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}_export"
        export = self.admin_site.admin_view(self.export)
        return [path("export/<str:kind>/", export, name=name), *super().get_urls()]

    def export(self, request: HttpRequest, kind: str) -> StreamingHttpResponse:
        """Send the list as it is filtered, and write down who took it before the first byte."""
        if not request.user.has_perm(self.export_permission) or not self.has_view_permission(
            request
        ):
            raise PermissionDenied
        if kind not in FORMATS:
            raise Http404
        asked = request.GET.copy()
        is_oldest_first = asked.pop(ORDER, [""])[-1] == OLDEST
        request.GET = asked  # type: ignore[assignment]  # a mutable copy is as good
        line: KeysetQuery = self.get_changelist_instance(request).line
        if is_oldest_first:
            line = dataclasses.replace(line, descending=not line.descending)
        self._write_down(request, kind)
        export = Export(line, FORMATS[kind](self.export_columns), self.records)
        response = StreamingHttpResponse(export.stream(), content_type=export.writer.content_type)
        name = f"{self.opts.verbose_name_plural}".replace(" ", "-")
        day = timezone.now().date().isoformat()
        response["Content-Disposition"] = f'attachment; filename="{name}-{day}.{kind}"'
        return response

    def records(self, rows: Sequence[Any]) -> list[Record]:
        self.complete(rows)
        return [{name: getattr(row, name) for name in self.export_columns} for row in rows]

    def exports(self, request: HttpRequest) -> list[tuple[str, str]]:
        """Return what the list offers to whoever looks at it: text and address."""
        if not request.user.has_perm(self.export_permission):
            return []
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_export"
        return [(kind.upper(), reverse(name, args=[kind])) for kind in FORMATS]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        shown = {"exports": self.exports(request), **(extra_context or {})}
        return super().changelist_view(request, shown)

    def _write_down(self, request: HttpRequest, kind: str) -> None:
        asked = {name: self.spoken(str(value)) for name, value in request.GET.items() if value}
        filters = ", ".join(f"{name}={value}" for name, value in asked.items()) or "everything"
        with transaction.atomic():
            audit.record(
                action=self.export_permission,
                subject=audit.Subject(self.opts.label_lower, ""),
                by=audit.Actor.of(request.user),
                at=timezone.now(),
                sentence=f"Exported {self.opts.verbose_name_plural} as {kind.upper()}: {filters}.",
                facts={"format": kind, "filters": asked},
            )

    def spoken(self, value: str) -> str:
        """Return what somebody typed as it may be written down."""
        return value.replace("\x00", "")


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | Decimal):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    is_formula = text.startswith(FORMULA) and not NUMBER.fullmatch(text)
    return f"'{text}" if is_formula else text
