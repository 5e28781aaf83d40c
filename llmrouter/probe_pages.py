"""The page that tests an upstream as it is in force, with one of its keys."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from airi_server.kernel.errors import DomainError
from airi_server.pages.operators import OperatorAdmin
from llmrouter import probes
from llmrouter.form_fields import PROBE
from llmrouter.models import RouterKey, RouterUpstream
from llmrouter.publishing_pages import Piece, Scripted, action, fragment, probed


class ProbePages(Scripted, OperatorAdmin):
    actions_detail = ("test",)

    def has_probe_permission(self, request: HttpRequest, _object_id: str | None = None) -> bool:
        return request.user.has_perm(probes.PERMISSION)

    @action(description="Test", url_path="test", permissions=["probe"], icon="network_check")
    def test(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """List the keys of an upstream; send one tiny request with the chosen one."""
        row: RouterUpstream = self.found(request, object_id)
        keys = list(row.keys.order_by("position"))
        piece = _tested(request, row, keys) if request.method == "POST" else None
        if piece is not None and request.headers.get("X-Requested-With") == "fetch":
            return fragment(request, piece)
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "title": f"Test {row} of {row.model}",
            "opts": self.opts,
            "row": row,
            "keys": keys,
            "piece": piece,
            "media": self.media,
        }
        return TemplateResponse(request, "console/router_test.html", context)


def _tested(request: HttpRequest, row: RouterUpstream, keys: list[RouterKey]) -> Piece:
    try:
        key = next((key for key in keys if str(key.pk) == request.POST.get(PROBE)), None)
        if key is None:
            raise probes.NotTestable("There is no such key: it may have been replaced.")
        return probed(request, probes.target_of(row, key.key_id), row.pk)
    except DomainError as refusal:
        return Piece("probe", {"refusal": refusal.message})
