"""Which pages of the console show people and their API keys."""

from __future__ import annotations

from django.contrib import admin

from accounts.admin.keys import KeyPages
from accounts.admin.users import UserPages
from accounts.models import APIKey, User

admin.site.register(User, UserPages)
admin.site.register(APIKey, KeyPages)
