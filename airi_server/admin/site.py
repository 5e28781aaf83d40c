"""The admin site: Django's, in unfold's design, with pages of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from unfold.sites import UnfoldAdminSite

from airi_server.admin import login, reconciliation, refusals, search, settings_pages, start
from airi_server.pages.operators import found_done
from billing.admin import grants
from llmrouter.admin import plan

if TYPE_CHECKING:
    BaseSite = AdminSite
else:
    BaseSite = UnfoldAdminSite


class ConsoleSite(BaseSite):
    """Every page of the console. Its pages import nothing that registers models: apps do that."""

    index_title = "Start"
    enable_nav_sidebar = True

    def extra_urls(self) -> list[URLPattern]:
        """Return the pages that belong to no model."""
        return [
            self._path("billing/grants/", grants.page, "grant_flux"),
            self._path("billing/grants/<str:draft>/", grants.preview, "grant_flux_preview"),
            self._path("llmrouter/plan/", plan.by_name, "llmrouter_plan"),
            self._path("reconciliation/", reconciliation.page, "reconciliation"),
            self._path("reconciliation/<int:run>/", reconciliation.run_page, "reconciliation_run"),
            self._path("settings/", settings_pages.overview, "settings"),
            self._path("settings/<str:name>/", settings_pages.setting, "setting"),
        ]

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return start.page(request, self.each_context(request) | (extra_context or {}))

    def search(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return search.page(request, self.each_context(request) | (extra_context or {}))

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        answer = super().login(request, extra_context)
        if request.method == "POST" and answer.status_code == 302:  # a failed one is 200
            login.remember_device(request, answer)
        return answer

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:  # noqa: FBT001, FBT002  Django's own
        """Let staff in, and write down when a page refuses them."""
        view = refusals.recorded(found_done(view))
        return refusals.not_redirected(super().admin_view(view, cacheable))

    def _path(self, route: str, view: Any, name: str) -> URLPattern:
        """Route a page for staff, and give it what every page shows around its own content."""

        def shown(request: HttpRequest, **arguments: Any) -> HttpResponse:
            answer: HttpResponse = view(request, self.each_context(request), **arguments)
            return answer

        guarded: Callable[..., HttpResponse] = self.admin_view(shown)
        return path(route, guarded, name=name)
