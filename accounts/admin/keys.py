"""API keys: found by what may be shown of them, switched off and on, never shown again.

The one exception is the answer to making a key, which is rendered once and stored nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.db.models.functions import Lower
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.enums import ActionVariant

from accounts import keys, users
from accounts.admin.base import EditPages, instant, state_of
from accounts.admin.forms import KEY_FIELDS, KeyForm, NewKeyForm, ReasonForm
from accounts.credentials import BASE62, without_secret
from accounts.models import KEY_PREFIX, APIKey, User
from airi_server.kernel.errors import Forbidden, NotFound
from airi_server.pages.columns import action, display


class KeyPages(EditPages):
    form = KeyForm
    list_display = (
        "prefix",
        "owner",
        "name",
        "state",
        "created",
        "expires",
        "last_used",
    )
    list_select_related = ("user",)
    search_fields = ("public_id__startswith",)
    search_help_text = "How a key begins, a whole user id or a whole e-mail address"
    empty_title = "No such API key"
    empty_help = "Search for how a key begins or for its owner, or make one with “Add API key”."
    ordering = ("-id",)
    readonly_fields = ("prefix", "owner", "state", "created", "disabled", "last_used")
    fieldsets = (
        (None, {"fields": readonly_fields}),
        ("Name and expiry", {"fields": KEY_FIELDS[:2]}),
        ("Where it may be used", {"fields": KEY_FIELDS[2:4]}),
        ("Spending limits", {"fields": KEY_FIELDS[4:7]}),
        ("Rates", {"fields": KEY_FIELDS[7:]}),
    )
    change_form_template = "admin/accounts/apikey/change_form.html"
    actions = ("disable_selected", "enable_selected", "delete_selected")
    actions_detail = ("disable", "enable")

    created = instant("created_at", "created (UTC)")
    expires = instant("expires_at", "expires (UTC)")
    disabled = instant("disabled_at", "disabled (UTC)")
    last_used = instant("last_used_at", "last used (UTC)")

    def owner_of(self, row: APIKey) -> User:
        return row.user

    def may_touch(self, request: HttpRequest, user: User) -> bool:
        """Let operators manage their own keys, as they may outside of the console."""
        return user.pk == request.user.pk or super().may_touch(request, user)

    @display(description="owner")
    def owner(self, key: APIKey) -> str:
        page = reverse("admin:accounts_user_change", args=[quote(key.user_id)])
        return format_html('<a class="text-link" href="{}">{}</a>', page, key.user.email)

    @display(
        description="state", label={"Works": "success", "Disabled": "danger", "Expired": "warning"}
    )
    def state(self, key: APIKey) -> str:
        return state_of(key, timezone.now())

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[APIKey], search_term: str
    ) -> tuple[QuerySet[APIKey], bool]:
        """Look through one index: of owners for an address, of both kinds of id otherwise."""
        term = without_secret(search_term)
        if not term:
            return queryset, False
        if "@" in term:
            owners = User.objects.alias(lower_email=Lower("email")).filter(lower_email=term.lower())
            return queryset.filter(user_id__in=list(owners.values_list("pk", flat=True))), False
        public_id = term.removeprefix(KEY_PREFIX)
        if queryset.filter(user_id=term).exists():
            return queryset.filter(user_id=term), False
        if not BASE62.issuperset(public_id):
            return queryset.none(), False
        return queryset.filter(public_id__startswith=public_id), False

    def has_change_permission(self, request: HttpRequest, obj: APIKey | None = None) -> bool:
        if obj is not None and not self.may_touch(request, obj.user):
            return False
        return super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: APIKey | None = None) -> bool:
        if obj is not None and not self.may_touch(request, obj.user):
            return False
        return super().has_delete_permission(request, obj)

    def has_switch_permission(self, request: HttpRequest, _key_id: str | None = None) -> bool:
        return request.user.has_perm("accounts.change_apikey")

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        """Offer what makes sense for this key, and what the operator may do to it."""
        key = self.get_object(request, unquote(object_id))
        if key is None or not self.may_touch(request, key.user):
            return []
        pointless = "disable" if key.disabled_at else "enable"
        offered: list[Any] = super().get_actions_detail(request, object_id)  # type: ignore[misc]
        return [one for one in offered if one.path != pointless]

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied

        def act(cleaned: Mapping[str, Any], at: datetime) -> HttpResponse:
            return self._create(request, dict(cleaned), at)

        form = NewKeyForm(request.POST or None, initial={"owner": request.GET.get("owner", "")})
        why = "The key is shown once, on the next page."
        return self.confirm(request, form, act, title="Add API key", why=why, back=self.list_page())

    def _create(self, request: HttpRequest, cleaned: dict[str, Any], at: datetime) -> HttpResponse:
        owner = users.with_email(cleaned.pop("owner"))
        if owner is None:
            raise NotFound("No user has this address.")
        if not self.may_touch(request, owner):
            raise Forbidden("A key of an operator has their powers: only superusers make one.")
        key, plaintext = keys.create(user_id=owner.pk, at=at, **cleaned)
        sentence = f"Created “{key.name}” for {owner}."
        self.record(request, "accounts.add_apikey", key, sentence, facts={"user_id": owner.pk})
        return self._show_once(request, key, plaintext)

    def _show_once(self, request: HttpRequest, key: APIKey, plaintext: str) -> HttpResponse:
        """Answer with the key itself: a message or a redirect would store it somewhere."""
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "API key",
            "key": key,
            "plaintext": plaintext,
        }
        return TemplateResponse(
            request,
            "admin/accounts/apikey/created.html",
            context,
            # A reload redirects there, and makes no second key.
            headers={"Cache-Control": "no-store", "Content-Location": self.page_of(key)},
        )

    def extra_context(self, request: HttpRequest, row: APIKey) -> dict[str, Any]:
        whose = f"?q={row.user_id}"
        return {
            **super().extra_context(request, row),
            "links": self.links(
                request,
                (
                    "Requests of the owner",
                    "billing.view_llmrequestlog",
                    "billing_llmrequestlog_changelist",
                    whose,
                ),
                (
                    "Ledger of the owner",
                    "billing.view_fluxtransaction",
                    "billing_fluxtransaction_changelist",
                    whose,
                ),
                (
                    "Keys of the owner",
                    "accounts.view_apikey",
                    "accounts_apikey_changelist",
                    whose,
                ),
            ),
        }

    def save_model(
        self,
        request: HttpRequest,
        obj: APIKey,
        form: forms.ModelForm[APIKey],
        change: bool,  # noqa: FBT001  Django's own signature
    ) -> None:
        changes: Any = {name: form.cleaned_data[name] for name in form.changed_data}
        keys.change(user_id=obj.user_id, public_id=obj.public_id, at=timezone.now(), **changes)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        key = self.found(request, object_id)
        if not self.has_delete_permission(request, key):
            raise PermissionDenied

        def act(cleaned: Mapping[str, Any], _at: datetime) -> HttpResponse:
            self._delete(request, key, cleaned["reason"])
            messages.success(request, f"{key.prefix} is deleted.")
            return redirect(self.list_page())

        why = (
            f"“{key.name}” of {key.user} will be refused at once and cannot be brought back. "
            "What it spent stays in the ledger. To keep the choice, disable it instead."
        )
        form = ReasonForm(request.POST or None)
        return self.confirm(request, form, act, title="Delete", why=why, back=self.page_of(key))

    @action(
        description="Disable",
        url_path="disable",
        permissions=["switch"],
        variant=ActionVariant.DANGER,
    )
    def disable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._ask_to_switch(request, self.touchable(request, object_id), disabled=True)

    @action(description="Enable", url_path="enable", permissions=["switch"])
    def enable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._ask_to_switch(request, self.touchable(request, object_id), disabled=False)

    def _ask_to_switch(self, request: HttpRequest, key: APIKey, *, disabled: bool) -> HttpResponse:
        def act(cleaned: Mapping[str, Any], at: datetime) -> HttpResponse:
            self._switch(request, key, cleaned["reason"], at, disabled=disabled)
            messages.success(request, f"{key.prefix} is {'disabled' if disabled else 'enabled'}.")
            return redirect(self.page_of(key))

        then = "will be refused at once, until it is enabled again" if disabled else "works again"
        return self.confirm(
            request,
            ReasonForm(request.POST or None),
            act,
            title="Disable" if disabled else "Enable",
            why=f"“{key.name}” of {key.user} {then}.",
            back=self.page_of(key),
        )

    @admin.action(description="Disable", permissions=["switch"])
    def disable_selected(
        self, request: HttpRequest, queryset: QuerySet[APIKey]
    ) -> HttpResponse | None:
        def act(key: APIKey, cleaned: Mapping[str, Any], at: datetime) -> None:
            self._switch(request, key, cleaned["reason"], at, disabled=True)

        return self.ask_about_selected(request, queryset, ReasonForm, act, title="Disable")

    @admin.action(description="Enable", permissions=["switch"])
    def enable_selected(
        self, request: HttpRequest, queryset: QuerySet[APIKey]
    ) -> HttpResponse | None:
        def act(key: APIKey, cleaned: Mapping[str, Any], at: datetime) -> None:
            self._switch(request, key, cleaned["reason"], at, disabled=False)

        return self.ask_about_selected(request, queryset, ReasonForm, act, title="Enable")

    @admin.action(description="Delete", permissions=["delete"])
    def delete_selected(
        self, request: HttpRequest, queryset: QuerySet[APIKey]
    ) -> HttpResponse | None:
        def act(key: APIKey, cleaned: Mapping[str, Any], _at: datetime) -> None:
            self._delete(request, key, cleaned["reason"])

        return self.ask_about_selected(request, queryset, ReasonForm, act, title="Delete")

    def _switch(
        self, request: HttpRequest, key: APIKey, reason: str, at: datetime, *, disabled: bool
    ) -> None:
        keys.change(user_id=key.user_id, public_id=key.public_id, at=at, disabled=disabled)
        sentence = f"{'Disabled' if disabled else 'Enabled'}: {reason}"
        facts = {"user_id": key.user_id, "public_id": key.public_id, "reason": reason}
        self.record(request, "accounts.change_apikey", key, sentence, facts=facts)

    def _delete(self, request: HttpRequest, key: APIKey, reason: str) -> None:
        sentence = f"Deleted {key.prefix} of {key.user}: {reason}"
        facts = {"user_id": key.user_id, "public_id": key.public_id, "reason": reason}
        self.record(request, "accounts.delete_apikey", key, sentence, facts=facts)
        keys.delete(user_id=key.user_id, public_id=key.public_id)
