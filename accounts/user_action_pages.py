"""What operators do to people, each thing with its own permission, its own form and a reason."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from unfold.enums import ActionVariant

from accounts import operators, users
from accounts.edit_pages import EditPages, action
from accounts.forms import BanForm, NewUserForm, PasswordForm, ReasonForm, SureForm
from accounts.models import User
from airi_server.kernel.errors import Forbidden

POWERS = ("is_staff", "roles")
"""Fields of a new user that only superusers decide."""


class UserActionPages(EditPages):
    actions = ("verify_selected", "unban_selected")
    actions_detail = ("verify", "ban", "unban", "password")

    def owner_of(self, row: User) -> User:
        return row

    # Methods, for a permission by its own name is looked for by a system check, and so refuses
    # the very migration that would make it.

    def has_verify_permission(self, request: HttpRequest, _user_id: str | None = None) -> bool:
        return request.user.has_perm("accounts.verify_user")

    def has_ban_permission(self, request: HttpRequest, _user_id: str | None = None) -> bool:
        return request.user.has_perm("accounts.ban_user")

    def has_unban_permission(self, request: HttpRequest, _user_id: str | None = None) -> bool:
        return request.user.has_perm("accounts.unban_user")

    def has_set_password_permission(
        self, request: HttpRequest, _user_id: str | None = None
    ) -> bool:
        return request.user.has_perm("accounts.set_user_password")

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        """Offer what makes sense for this person, and what the operator may do to them."""
        user = self.get_object(request, unquote(object_id))
        if user is None or not self.may_touch(request, user):
            return []
        pointless = {
            "verify" if user.email_verified else "",
            "" if user.banned else "unban",
            "ban" if user.pk == request.user.pk else "",
        }
        offered: list[Any] = super().get_actions_detail(request, object_id)  # type: ignore[misc]
        return [one for one in offered if one.path not in pointless]

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = NewUserForm(request.POST or None)
        if not request.user.is_superuser:
            for name in POWERS:
                del form.fields[name]

        def act(cleaned: Mapping[str, Any], at: datetime) -> HttpResponse:
            return self._create(request, dict(cleaned), at)

        why = "Somebody who can be given Flux and API keys. One address is one user."
        return self.ask(request, form, act, title="Add user", why=why, back=self.list_page())

    def _create(self, request: HttpRequest, cleaned: dict[str, Any], at: datetime) -> HttpResponse:
        roles = cleaned.pop("roles", [])
        email, verified = cleaned["email"], cleaned["verified"]
        if verified and operators.is_listed(email) and not request.user.is_superuser:
            raise Forbidden("This address may do everything: only superusers verify it.")
        user = users.create(**{**cleaned, "password": cleaned["password"] or None}, at=at)
        user.groups.set(roles)
        powers = [", verified"] * verified + [", staff"] * user.is_staff
        powers += [f", {role}" for role in roles]
        sentence = f"Created {user}{''.join(powers)}."
        self.record(request, "accounts.add_user", user, sentence, facts={"email": user.email})
        messages.success(request, sentence)
        return redirect(self.page_of(user))

    @action(description="Verify", url_path="verify", permissions=["verify"])
    def verify(self, request: HttpRequest, object_id: str) -> HttpResponse:
        user = self.touchable(request, object_id)

        def act(_cleaned: Mapping[str, Any], at: datetime) -> HttpResponse:
            self._verify(request, user, at)
            messages.success(request, f"{user} is verified.")
            return redirect(self.page_of(user))

        why = f"You know that {user} owns this address."
        form = SureForm(request.POST if request.method == "POST" else None)
        return self.ask(request, form, act, title="Verify", why=why, back=self.page_of(user))

    @action(
        description="Ban",
        url_path="ban",
        permissions=["ban"],
        variant=ActionVariant.DANGER,
    )
    def ban(self, request: HttpRequest, object_id: str) -> HttpResponse:
        user = self.touchable(request, object_id)
        if user.pk == request.user.pk:
            raise PermissionDenied

        def act(cleaned: Mapping[str, Any], at: datetime) -> HttpResponse:
            users.ban(user_id=user.pk, **cleaned, at=at)
            until = cleaned["until"]
            end = f"until {until:%Y-%m-%d %H:%M} UTC" if until else "for good"
            facts = {"reason": cleaned["reason"], "until": until.isoformat() if until else None}
            sentence = f"Banned {end}: {cleaned['reason']}"
            self.record(request, "accounts.ban_user", user, sentence, facts=facts)
            messages.success(request, f"{user} is banned; every key and session stopped working.")
            return redirect(self.page_of(user))

        why = f"{user} will be logged out, and every API key refused, at once."
        form = BanForm(request.POST or None)
        return self.ask(request, form, act, title="Ban", why=why, back=self.page_of(user))

    @action(description="End the ban", url_path="unban", permissions=["unban"])
    def unban(self, request: HttpRequest, object_id: str) -> HttpResponse:
        user = self.touchable(request, object_id)

        def act(cleaned: Mapping[str, Any], at: datetime) -> HttpResponse:
            self._unban(request, user, cleaned["reason"], at)
            messages.success(request, f"{user} is not banned any more.")
            return redirect(self.page_of(user))

        why = f"The API keys of {user} will work again, and so will the password."
        form = ReasonForm(request.POST or None)
        return self.ask(request, form, act, title="End the ban", why=why, back=self.page_of(user))

    @action(
        description="Set password",
        url_path="password",
        permissions=["set_password"],
    )
    def password(self, request: HttpRequest, object_id: str) -> HttpResponse:
        user = self.touchable(request, object_id)

        def act(cleaned: Mapping[str, Any], at: datetime) -> HttpResponse:
            users.set_password(user_id=user.pk, password=cleaned["password"], at=at)
            reason = cleaned["reason"]
            sentence = f"Set a new password, which ended every session: {reason}"
            facts = {"reason": reason}
            self.record(request, "accounts.set_user_password", user, sentence, facts=facts)
            messages.success(request, f"{user} has a new password; every session ended.")
            return redirect(self.page_of(user))

        why = f"Every session of {user} will end. API keys go on working."
        form = PasswordForm(request.POST or None)
        return self.ask(request, form, act, title="Set password", why=why, back=self.page_of(user))

    @admin.action(description="Verify", permissions=["verify"])
    def verify_selected(
        self, request: HttpRequest, queryset: QuerySet[User]
    ) -> HttpResponse | None:
        def act(user: User, _cleaned: Mapping[str, Any], at: datetime) -> None:
            self._verify(request, user, at)

        return self.ask_about_selected(request, queryset, SureForm, act, title="Verify")

    @admin.action(description="End bans", permissions=["unban"])
    def unban_selected(self, request: HttpRequest, queryset: QuerySet[User]) -> HttpResponse | None:
        def act(user: User, cleaned: Mapping[str, Any], at: datetime) -> None:
            self._unban(request, user, cleaned["reason"], at)

        return self.ask_about_selected(request, queryset, ReasonForm, act, title="End bans")

    def _verify(self, request: HttpRequest, user: User, at: datetime) -> None:
        users.verify(user_id=user.pk, at=at)
        self.record(request, "accounts.verify_user", user, f"Verified the address {user}.")

    def _unban(self, request: HttpRequest, user: User, reason: str, at: datetime) -> None:
        users.unban(user_id=user.pk, at=at)
        facts = {"reason": reason}
        sentence = f"Ended the ban: {reason}"
        self.record(request, "accounts.unban_user", user, sentence, facts=facts)
