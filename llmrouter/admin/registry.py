"""Which pages of the console edit the router."""

from __future__ import annotations

from django.contrib import admin

from llmrouter.admin.models import RouterDefaultsAdmin, RouterModelAdmin, RouterUpstreamAdmin
from llmrouter.admin.revisions import RevisionPages
from llmrouter.configuration.models import (
    RouterDefaults,
    RouterModel,
    RouterRevision,
    RouterUpstream,
)

admin.site.register(RouterModel, RouterModelAdmin)
admin.site.register(RouterUpstream, RouterUpstreamAdmin)
admin.site.register(RouterDefaults, RouterDefaultsAdmin)
admin.site.register(RouterRevision, RevisionPages)
