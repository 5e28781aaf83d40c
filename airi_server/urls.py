"""Where everything is mounted."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.urls import path

from airi_server.api import api
from airi_server.views import landing, reference
from airi_server.web import error_responses, health
from chats.views import chat

urlpatterns = [
    path("", landing.root),  # before the API, which has a root of its own there
    path("favicon.ico", landing.favicon),
    path("docs", reference.reference),
    path("docs/", landing.docs),
    path("docs/<str:name>", reference.document),
    path("", api.urls),
    path("livez", health.livez),
    path("readyz", health.readyz),
    path("app", landing.chat),
    path("app/", landing.chat),
    path("app/chat", chat.chat),
    path(settings.ADMIN_PATH, landing.console),
    path(f"{settings.ADMIN_PATH}/", admin.site.urls),
]
handler400 = error_responses.malformed
handler403 = error_responses.forbidden
handler404 = error_responses.not_found
handler500 = error_responses.server_error
