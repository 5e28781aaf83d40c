"""Which pages of the console show the books: nothing there changes a row."""

from __future__ import annotations

from django.contrib import admin

from billing.admin.accounts import AccountPages
from billing.admin.entries import EntryPages
from billing.admin.grant_lists import GrantPages
from billing.admin.prices import PricePages
from billing.admin.refusals import RefusalPages
from billing.admin.requests import RequestPages
from billing.models import (
    FluxAccount,
    FluxGrant,
    FluxTransaction,
    LLMRequestLog,
    PriceVersion,
    RefusedRequest,
)

admin.site.register(FluxAccount, AccountPages)
admin.site.register(FluxGrant, GrantPages)
admin.site.register(FluxTransaction, EntryPages)
admin.site.register(LLMRequestLog, RequestPages)
admin.site.register(PriceVersion, PricePages)
admin.site.register(RefusedRequest, RefusalPages)
