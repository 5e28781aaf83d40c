"""`/app/chat`: a page to talk to a model, and an example of a client of `/ws/v2/chat`.

The page is the same for everybody: who it is for is decided by the key that its reader brings.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe


@require_safe
@cache_control(no_cache=True)
def chat(request: HttpRequest) -> HttpResponse:
    return render(request, "app/chat.html")
