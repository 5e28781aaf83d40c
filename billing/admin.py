"""Which pages of the console show the books: nothing there changes a row."""

from __future__ import annotations

from django.contrib import admin

from billing.account_pages import AccountPages
from billing.entry_pages import EntryPages
from billing.models import FluxAccount, FluxTransaction, LLMRequestLog, PriceVersion
from billing.price_pages import PricePages
from billing.request_pages import RequestPages

admin.site.register(FluxAccount, AccountPages)
admin.site.register(FluxTransaction, EntryPages)
admin.site.register(LLMRequestLog, RequestPages)
admin.site.register(PriceVersion, PricePages)
