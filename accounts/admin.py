"""Which pages of the console show people and their API keys."""

from __future__ import annotations

from django.contrib import admin

from accounts.key_pages import KeyPages
from accounts.models import APIKey, User
from accounts.user_pages import UserPages

admin.site.register(User, UserPages)
admin.site.register(APIKey, KeyPages)
