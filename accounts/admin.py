"""Operator console for people and their API keys: named actions, and no secret is ever shown.

The one exception is the answer to making a key, which is rendered once and stored nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.db.models.functions import Lower
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone

from accounts import keys, users
from accounts.forms import BanForm, KeyForm, NewKeyForm, NewUserForm, PasswordForm, UserForm
from accounts.models import KEY_PREFIX, APIKey, User
from airi_server.kernel.errors import DomainError, NotFound

Act = Callable[[Mapping[str, Any]], HttpResponse]


class OperatorAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    show_full_result_count = False

    def _ask(
        self, request: HttpRequest, form: forms.BaseForm, act: Act, *, title: str, why: str
    ) -> HttpResponse:
        """Show a form; act on a valid one, and show a refusal on the form."""
        if request.method == "POST" and form.is_valid():
            try:
                return act(form.cleaned_data)
            except DomainError as refusal:
                form.add_error(None, refusal.message)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "form": form,
            "title": title,
            "explanation": why,
        }
        return TemplateResponse(request, "admin/accounts/form.html", context)


@admin.register(User)
class UserAdmin(OperatorAdmin):
    form = UserForm
    list_display = ("email", "id", "name", "email_verified", "banned", "is_staff", "created_at")
    list_filter = ("banned", "is_staff")
    search_fields = ("id__exact",)
    search_help_text = "A whole e-mail address or id"
    ordering = ("-created_at", "id")
    filter_horizontal = ("groups", "user_permissions")
    change_form_template = "admin/accounts/user/change_form.html"
    actions = ("verify_selected", "unban_selected")
    readonly_fields = (
        "id",
        "email_verified",
        "banned",
        "ban_reason",
        "ban_expires_at",
        "last_login",
        "last_seen_at",
        "created_at",
        "updated_at",
    )

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        """Leave powers to superusers: who may change people may not make themselves one."""
        powers = ("is_staff", "is_superuser", "groups", "user_permissions")
        return self.readonly_fields + (() if request.user.is_superuser else powers)

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        if obj is not None and not self._may_touch(request, obj):
            return False
        return super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """People are deleted by their own request, with everything that hangs on them."""
        return False

    def has_ban_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("accounts.ban_user")

    def has_verify_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("accounts.verify_user")

    def _may_touch(self, request: HttpRequest, user: User) -> bool:
        return request.user.is_superuser or not (user.is_staff or user.is_superuser)

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> User | None:
        """Find the person; Django lets NUL through to a database that refuses to look for it."""
        if "\x00" in object_id:
            return None
        found: User | None = super().get_object(request, object_id, from_field)
        return found

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[User], search_term: str
    ) -> tuple[QuerySet[User], bool]:
        """Look for one whole address, through its index, or one id."""
        term = search_term.strip()
        if not term:
            return queryset, False
        found = queryset.alias(lower_email=Lower("email"))
        return found.filter(Q(lower_email=term.lower()) | Q(pk=term)), False

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<str:user_id>/ban/", view(self.ban_view), name="accounts_user_ban"),
            path(
                "<str:user_id>/password/", view(self.password_view), name="accounts_user_password"
            ),
            *super().get_urls(),
        ]

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = NewUserForm(request.POST or None)
        if not request.user.is_superuser:
            del form.fields["is_staff"]

        def act(cleaned: Mapping[str, Any]) -> HttpResponse:
            password = cleaned["password"] or None
            user = users.create(**{**cleaned, "password": password}, at=timezone.now())
            self.log_addition(request, user, "Created")
            return redirect("admin:accounts_user_change", user.pk)

        return self._ask(request, form, act, title="Add user", why="")

    def save_model(
        self,
        request: HttpRequest,
        obj: User,
        form: forms.ModelForm[User],
        change: bool,  # noqa: FBT001  Django's own signature
    ) -> None:
        relations = {"groups", "user_permissions"}
        columns: Any = {name: getattr(obj, name) for name in form.changed_data}
        named = {name: value for name, value in columns.items() if name not in relations}
        users.change(user_id=obj.pk, at=timezone.now(), **named)

    def ban_view(self, request: HttpRequest, user_id: str) -> HttpResponse:
        user = self._touchable(request, user_id)
        if not self.has_ban_permission(request):
            raise PermissionDenied

        def act(cleaned: Mapping[str, Any]) -> HttpResponse:
            users.ban(user_id=user.pk, **cleaned, at=timezone.now())
            self.log_change(request, user, f"Banned: {cleaned['reason']}")
            messages.success(request, f"{user} is banned; every key and session stopped working.")
            return redirect("admin:accounts_user_change", user.pk)

        why = f"{user} will be logged out, and every API key refused, at once."
        return self._ask(request, BanForm(request.POST or None), act, title="Ban", why=why)

    def password_view(self, request: HttpRequest, user_id: str) -> HttpResponse:
        user = self._touchable(request, user_id)
        if not self.has_change_permission(request, user):
            raise PermissionDenied

        def act(cleaned: Mapping[str, Any]) -> HttpResponse:
            users.set_password(user_id=user.pk, **cleaned, at=timezone.now())
            self.log_change(request, user, "Set a new password")
            messages.success(request, f"{user} has a new password; every session ended.")
            return redirect("admin:accounts_user_change", user.pk)

        form = PasswordForm(request.POST or None)
        return self._ask(request, form, act, title="Set password", why=f"For {user}.")

    def _touchable(self, request: HttpRequest, user_id: str) -> User:
        user = self.get_object(request, user_id)
        if user is None:
            raise Http404
        if not self._may_touch(request, user):
            raise PermissionDenied
        return user

    @admin.action(description="Mark addresses as verified", permissions=["verify"])
    def verify_selected(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        for user in queryset:
            users.verify(user_id=user.pk, at=timezone.now())
            self.log_change(request, user, "Marked the address as verified")

    @admin.action(description="End bans", permissions=["ban"])
    def unban_selected(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        for user in queryset:
            if self._may_touch(request, user):
                users.unban(user_id=user.pk, at=timezone.now())
                self.log_change(request, user, "Ended the ban")


@admin.register(APIKey)
class APIKeyAdmin(OperatorAdmin):
    form = KeyForm
    list_display = (
        "prefix",
        "user",
        "name",
        "created_at",
        "expires_at",
        "disabled_at",
        "last_used_at",
    )
    list_select_related = ("user",)
    search_fields = ("public_id__startswith",)
    search_help_text = "The beginning of a key, or a whole user id"
    ordering = ("-id",)
    readonly_fields = ("prefix", "user", "created_at", "disabled_at", "last_used_at")
    actions = ("disable_selected", "enable_selected")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[APIKey], search_term: str
    ) -> tuple[QuerySet[APIKey], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        public_id = term.removeprefix(KEY_PREFIX)[:12]
        return queryset.filter(Q(public_id__startswith=public_id) | Q(user_id=term)), False

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied

        def act(cleaned: Mapping[str, Any]) -> HttpResponse:
            settings = dict(cleaned)
            owner = users.with_email(settings.pop("owner"))
            if owner is None:
                raise NotFound("No user has this address.")
            key, plaintext = keys.create(user_id=owner.pk, at=timezone.now(), **settings)
            self.log_addition(request, key, "Created")
            return self._show_once(request, key, plaintext)

        form = NewKeyForm(request.POST or None, initial={"owner": request.GET.get("owner", "")})
        why = "The key is shown once, on the next page."
        return self._ask(request, form, act, title="Add API key", why=why)

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
            headers={"Cache-Control": "no-store"},
        )

    def save_model(
        self,
        request: HttpRequest,
        obj: APIKey,
        form: forms.ModelForm[APIKey],
        change: bool,  # noqa: FBT001  Django's own signature
    ) -> None:
        changes: Any = {name: form.cleaned_data[name] for name in form.changed_data}
        keys.change(user_id=obj.user_id, public_id=obj.public_id, at=timezone.now(), **changes)

    def delete_model(self, request: HttpRequest, obj: APIKey) -> None:
        keys.delete(user_id=obj.user_id, public_id=obj.public_id)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> None:
        for key in queryset:
            self.delete_model(request, key)

    @admin.action(description="Disable selected keys", permissions=["change"])
    def disable_selected(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> None:
        self._switch(request, queryset, disabled=True)

    @admin.action(description="Enable selected keys", permissions=["change"])
    def enable_selected(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> None:
        self._switch(request, queryset, disabled=False)

    def _switch(self, request: HttpRequest, queryset: QuerySet[APIKey], *, disabled: bool) -> None:
        for key in queryset:
            keys.change(
                user_id=key.user_id, public_id=key.public_id, at=timezone.now(), disabled=disabled
            )
            self.log_change(request, key, "Disabled" if disabled else "Enabled")
        messages.success(request, f"{'Disabled' if disabled else 'Enabled'} {len(queryset)} keys.")
