"""The router's pages: models, upstreams and keys to edit, revisions to read and publish again."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from airi_server.pages.columns import action
from airi_server.pages.operators import StackedInline, TabularInline
from llmrouter.admin import forms, overview, probes
from llmrouter.admin import plan as plan_pages
from llmrouter.admin.publishing import MayPublish, ProbePages, PublishingAdmin
from llmrouter.configuration import rows, tree
from llmrouter.configuration.models import (
    RouterDefaults,
    RouterKey,
    RouterModel,
    RouterUpstream,
)

Fieldsets = list[tuple[str | None, dict[str, Any]]]
SHARING = (
    "Upstreams of the same priority share the requests by their weights. To send half of the "
    "traffic to a second upstream, give both the same priority and the same weight; weights of 3 "
    "and 1 make three quarters and one quarter. The others are tried when these fail."
)


class LineInline(MayPublish):
    """Lines of which at least one has to stay, in an order that is dragged or entered."""

    extra = 0
    ordering_field = "position"
    hide_ordering_field = False

    def get_formset(self, request: HttpRequest, obj: Any = None, **options: Any) -> Any:
        return super().get_formset(request, obj, **options, validate_min=True)  # type: ignore[misc]


class RouterUpstreamInline(LineInline, StackedInline):
    min_num = 1
    ordering = ("position", "pk")
    model = RouterUpstream
    form = forms.RouterUpstreamForm
    formset = forms.UpstreamFormSet
    show_change_link = True
    readonly_fields = ("stored_keys",)
    template_before = "console/router_hint.html"
    hint = SHARING

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fieldsets = upstream_fieldsets("stored_keys", ("key_id", "key_value"))
        if request.user.has_perm(probes.PERMISSION):
            fieldsets[0][1]["fields"].append("probe")
        return fieldsets

    @admin.display(description="Keys")
    def stored_keys(self, upstream: RouterUpstream) -> SafeString | str:
        keys = list(upstream.keys.order_by("position")) if upstream.pk else []
        lines = (
            (k.key_id, k.fingerprint or "unreadable", " disabled" * k.disabled, k.origin)
            for k in keys
        )
        shown = format_html_join(", ", "{} <code>{}</code>{} for {}", lines)
        return shown or "None yet: enter one below."


class RouterKeyInline(LineInline, TabularInline):
    min_num = 1
    ordering = ("position", "pk")
    model = RouterKey
    form = forms.RouterKeyForm
    formset = forms.LineFormSet
    readonly_fields = ("fingerprint", "entered_for")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = ["position", "key_id", "fingerprint", "entered_for", "value", "disabled"]
        return [*fields, "probe"] if request.user.has_perm(probes.PERMISSION) else fields

    @admin.display(description="Entered for")
    def entered_for(self, key: RouterKey) -> str:
        return key.origin


def upstream_fieldsets(*keys: Any) -> Fieldsets:
    """Return the parts of an upstream's form; `keys` is what there is to see and enter of those."""
    return [
        (None, {"fields": ["base_url", ("slug", "override_model"), *keys]}),
        ("Order", {"fields": [("position", "priority", "weight")]}),
        (
            "Advanced",
            {
                "classes": ["collapse"],
                "fields": [("header_template", "timeout_ms"), ("allow", "omit"), "adapter_params"],
            },
        ),
    ]


class RouterModelAdmin(PublishingAdmin):
    form = forms.RouterModelForm
    inlines = (RouterUpstreamInline,)
    list_display = ("shown_name", "upstreams", "max_output_tokens")
    list_filter = ("surface",)
    list_per_page = 50
    search_fields = ("name",)
    ordering = ("surface", "name")
    list_before_template = "console/router_overview.html"
    actions_detail = ("plan",)
    fieldsets = (
        (None, {"fields": ["name", ("surface", "provider")]}),
        ("Why", {"fields": ["note"]}),
        ("Limits", {"fields": [("max_output_tokens", "default_output_tokens")]}),
        ("Routing", {"fields": [("on_timeout", "ask_again_after_timeout"), "trigger_codes"]}),
        ("Advanced", {"classes": ["collapse"], "fields": [("max_tokens_field", "tokenizer")]}),
    )

    def model_of(self, request: HttpRequest, object_id: str | None) -> str:
        row = self.get_object(request, unquote(object_id)) if object_id else None
        return row.name if row is not None and row.surface == tree.LLM else ""

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        # The name is part of what seals its keys.
        return ("name", "surface") if obj else ()

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:  # noqa: FBT001  Django's signature
        super().save_formset(request, form, formset, change)
        for upstream_form in formset.forms:
            value = upstream_form.cleaned_data.get("key_value")
            if value and upstream_form not in formset.deleted_forms:
                rows.put_key(
                    upstream_form.instance,
                    key_id=upstream_form.cleaned_data["key_id"],
                    plaintext=value,
                )

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Add to the models of this page what the list says of each."""
        listed: Any = super().get_changelist_instance(request)
        listed.overview = overview.current(at=timezone.now())
        listed.result_list = overview.annotate(listed.result_list, listed.overview)
        listed.may_probe = request.user.has_perm(probes.PERMISSION)
        for model in listed.result_list:
            model.may_probe = listed.may_probe
        return listed

    @admin.display(description="Model", ordering="name")
    def shown_name(self, model: Any) -> SafeString:
        return render_to_string("console/router_name.html", {"model": model})

    @admin.display(description="Upstreams, in the order they are tried")
    def upstreams(self, model: Any) -> SafeString:
        context = {"model": model, "lines": model.lines, "may_probe": model.may_probe}
        return render_to_string("console/router_upstreams.html", context)

    @action(description="Plan", url_path="plan", permissions=["view"], icon="route")
    def plan(self, request: HttpRequest, object_id: str) -> HttpResponse:
        model: RouterModel = self.found(request, object_id)
        context = self.admin_site.each_context(request)
        if model.surface != tree.LLM:
            context["speech"] = model
        return plan_pages.page(request, context, model.name)


class RouterUpstreamAdmin(ProbePages, PublishingAdmin):
    form = forms.UpstreamPageForm
    inlines = (RouterKeyInline,)
    list_display = ("__str__", "model", "base_url", "override_model", "priority", "weight")
    list_select_related = ("model",)
    search_fields = ("=model__name", "slug")
    search_help_text = "A whole model name, or a part of a slug"
    ordering = ("model__name", "position", "pk")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fieldsets = upstream_fieldsets()
        fieldsets[1][1]["description"] = SHARING
        return [("Why", {"fields": ["note"]}), *fieldsets]

    def model_of(self, request: HttpRequest, object_id: str | None) -> str:
        row = self.get_object(request, unquote(object_id)) if object_id else None
        return row.model.name if row is not None and row.model.surface == tree.LLM else ""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: an upstream begins on its model's page."""
        return False

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:  # noqa: FBT001  Django's signature
        for key_form in formset.forms:
            if value := key_form.cleaned_data.get("value"):
                rows.seal_key(key_form.instance, form.instance, plaintext=value)
        super().save_formset(request, form, formset, change)


class RouterDefaultsAdmin(PublishingAdmin):
    form = forms.RouterDefaultsForm
    fieldsets = (
        ("Why", {"fields": ["note"]}),
        (
            "Limits",
            {
                "fields": [
                    ("per_attempt_timeout_ms", "first_byte_timeout_ms"),
                    ("idle_timeout_ms", "full_chain_timeout_ms"),
                    ("first_event_idle_ms", "answer_timeout_ms"),
                ]
            },
        ),
        ("Routing", {"fields": ["fallback_http_codes"]}),
    )

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_add_permission(request) and not RouterDefaults.objects.exists()

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {"fallback_http_codes": list(tree.DEFAULT_CODES)}
