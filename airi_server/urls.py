"""Where everything is mounted."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.urls import path

from airi_server import health, refusal_responses
from airi_server.api import api
from chats import pages

urlpatterns = [
    path("", health.root),  # before the API, which has a root of its own there
    path("", api.urls),
    path("livez", health.livez),
    path("readyz", health.readyz),
    path("app/chat", pages.chat),
    path(f"{settings.ADMIN_PATH}/", admin.site.urls),
]
handler400 = refusal_responses.malformed
handler404 = refusal_responses.not_found
handler500 = refusal_responses.server_error
