"""Columns and links: decorators of unfold's with types, and addresses of pages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.contrib.admin.utils import quote
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.http import urlencode

# unfold has no types of its own.
if TYPE_CHECKING:
    Method = Callable[..., Any]

    def action(**options: Any) -> Callable[[Method], Method]: ...
    def display(**options: Any) -> Callable[[Method], Method]: ...
else:
    from unfold.decorators import action, display

__all__ = ["action", "display", "instant", "link_to", "listed", "number"]


def link_to(page: str, key: Any) -> str:
    """Return the address of a row's page, or nowhere while there is no such page."""
    try:
        return reverse(f"admin:{page}", args=[quote(str(key))])
    except NoReverseMatch:
        return ""


def listed(page: str, **query: str) -> str:
    """Return the address of a page with a query, or nowhere while there is no such page."""
    try:
        return f"{reverse(f'admin:{page}')}?{urlencode(query)}"
    except NoReverseMatch:
        return ""


def number(value: int | None) -> str:
    """Write a number so that a column of them can be compared at a glance."""
    text = "" if value is None else f"{value:,}"
    return format_html('<span class="console-number">{}</span>', text)


def instant(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"
