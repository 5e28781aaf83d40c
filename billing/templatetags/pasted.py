"""Tags for what somebody pasted."""

from __future__ import annotations

from django import template

from billing import address_lists

register = template.Library()
register.filter("visible", address_lists.visible)
