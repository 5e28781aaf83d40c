"""`/` and what else a person types first: the pages lead on, programs get their JSON."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.template.loader import render_to_string
from django.utils.cache import patch_vary_headers
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from django.views.generic import RedirectView

PROGRAM: Final = "application/json"
BROWSER: Final = "text/html"
DEFAULT_ADMIN_PATH: Final = "admin"
ICON: Final = Path(__file__).parents[1] / "static" / "airi_server" / "favicon.ico"

chat = require_safe(RedirectView.as_view(url="/app/chat"))
"""`/app` and `/app/`, until there is more than the chat."""
docs = csrf_exempt(require_safe(RedirectView.as_view(url="/docs")))
console = require_safe(RedirectView.as_view(pattern_name="admin:index", query_string=True))


@csrf_exempt
@require_safe
async def root(request: HttpRequest) -> HttpResponseBase:
    """Say what this is: to a browser as a page, to everything else as JSON (contract §1.4)."""
    asked_for = request.get_preferred_type([PROGRAM, BROWSER])
    response = HttpResponse(_page()) if asked_for == BROWSER else _facts()
    patch_vary_headers(response, ["Accept"])
    return response


@csrf_exempt
@require_safe
async def favicon(_request: HttpRequest) -> HttpResponse:
    return HttpResponse(_icon(), content_type="image/x-icon")


def _facts() -> HttpResponse:
    return JsonResponse(
        {
            "service": "airi-api",
            "message": "AIRI server: an OpenAI-compatible API on prepaid Flux.",
            "docs": f"{settings.WEB_APP_URL}/docs",
            "ui": settings.WEB_APP_URL,
        }
    )


def _page() -> str:
    # An operator who gave the console another address wants it not to be found.
    is_public = settings.ADMIN_PATH == DEFAULT_ADMIN_PATH
    console_path = f"/{settings.ADMIN_PATH}/" if is_public else ""
    shown = {"console": console_path, "base_url": f"{settings.API_SERVER_URL}/v1"}
    return render_to_string("front/landing.html", shown)


@lru_cache(maxsize=1)
def _icon() -> bytes:
    return ICON.read_bytes()
