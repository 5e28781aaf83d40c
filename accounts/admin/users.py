"""People: the list that finds one, and the page that says everything about them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.auth.models import Permission
from django.core.exceptions import PermissionDenied
from django.db.models import ManyToManyField, QuerySet
from django.db.models.functions import Lower
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from unfold.enums import ActionVariant

from accounts import keys, operators, users
from accounts.admin.base import EditPages, instant, standing_of, state_of
from accounts.admin.forms import BanForm, NewUserForm, PasswordForm, ReasonForm, SureForm, UserForm
from accounts.credentials import BASE62, PUBLIC_ID_LENGTH, without_secret
from accounts.models import KEY_PREFIX, APIKey, User
from airi_server.kernel.errors import Forbidden
from airi_server.pages.columns import action, display

GIVEN_POWERS = ("is_staff", "roles")
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
            for name in GIVEN_POWERS:
                del form.fields[name]

        def act(cleaned: Mapping[str, Any], at: datetime) -> HttpResponse:
            return self._create(request, dict(cleaned), at)

        why = "Somebody who can be given Flux and API keys. One address is one user."
        return self.confirm(request, form, act, title="Add user", why=why, back=self.list_page())

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
        return self.confirm(request, form, act, title="Verify", why=why, back=self.page_of(user))

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
        return self.confirm(request, form, act, title="Ban", why=why, back=self.page_of(user))

    @action(description="End the ban", url_path="unban", permissions=["unban"])
    def unban(self, request: HttpRequest, object_id: str) -> HttpResponse:
        user = self.touchable(request, object_id)

        def act(cleaned: Mapping[str, Any], at: datetime) -> HttpResponse:
            self._unban(request, user, cleaned["reason"], at)
            messages.success(request, f"{user} is not banned any more.")
            return redirect(self.page_of(user))

        why = f"The API keys of {user} will work again, and so will the password."
        form = ReasonForm(request.POST or None)
        return self.confirm(
            request, form, act, title="End the ban", why=why, back=self.page_of(user)
        )

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
        return self.confirm(
            request, form, act, title="Set password", why=why, back=self.page_of(user)
        )

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


POWERS: Final = ("is_staff", "is_superuser", "groups", "user_permissions")
MAX_OWNERS: Final = 100


class UserPages(UserActionPages):
    form = UserForm
    list_display = (
        "email",
        "name",
        "verified",
        "standing",
        "staff",
        "created",
        "last_seen",
    )
    list_filter = ("banned", "email_verified", "is_staff", "is_active")
    search_fields = ("id__exact",)
    search_help_text = "A whole e-mail address, a user id, or how an API key begins"
    empty_title = "No such user"
    empty_help = "Search for a whole e-mail address or id, or add somebody with “Add user”."
    ordering = ("-created_at", "id")
    change_form_template = "admin/accounts/user/change_form.html"
    readonly_fields = ("id", "verified", "created", "last_seen", "last_login_at")
    fieldsets = (
        (None, {"fields": ("email", "name", "is_active")}),
        ("Seen", {"fields": readonly_fields}),
        ("Powers", {"fields": POWERS, "classes": ["collapse"]}),
    )

    created = instant("created_at", "created (UTC)")
    last_seen = instant("last_seen_at", "last seen (UTC)")

    last_login_at = instant("last_login", "last login (UTC)")

    @display(description="verified", boolean=True)
    def verified(self, user: User) -> bool:
        return user.email_verified

    @display(description="staff", boolean=True)
    def staff(self, user: User) -> bool:
        return user.is_staff

    @display(description="standing", label={"in": "success", "off": "warning", "banned": "danger"})
    def standing(self, user: User) -> tuple[str, str]:
        now = timezone.now()
        kind = "banned" if user.is_banned(now) else "in" if user.is_active else "off"
        return kind, standing_of(user, now)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        """Leave powers to superusers, and one's own to another one."""
        is_own = obj is not None and obj.pk == request.user.pk
        if is_own:
            return (*self.readonly_fields, *POWERS, "is_active")
        return (*self.readonly_fields, *(() if request.user.is_superuser else POWERS))

    def formfield_for_manytomany(
        self, db_field: ManyToManyField[Any, Any], request: HttpRequest, **options: Any
    ) -> Any:
        """Name each permission without a statement of its own: its name begins with its model's."""
        if db_field.name == "user_permissions":
            options["queryset"] = Permission.objects.select_related("content_type")
        return super().formfield_for_manytomany(db_field, request, **options)

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        if obj is not None and not self.may_touch(request, obj):
            return False
        return super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """People are deleted by their own request, with everything that hangs on them."""
        return False

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[User], search_term: str
    ) -> tuple[QuerySet[User], bool]:
        """Look through one index for each kind of term: together they would walk the table."""
        term = without_secret(search_term)
        if not term:
            return queryset, False
        if "@" in term:
            found = queryset.alias(lower_email=Lower("email"))
            return found.filter(lower_email=term.lower()), False
        return queryset.filter(pk__in=[term, *_owners(term)]), False

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

    def extra_context(self, request: HttpRequest, row: User) -> dict[str, Any]:
        user, whose, at = row, f"?q={row.pk}", timezone.now()
        address = urlencode({"email": user.email})
        return {
            **super().extra_context(request, row),
            "standing": standing_of(user, at),
            "has_powers": operators.has_powers(user),
            "links": self.links(
                request,
                ("Account", "billing.view_fluxaccount", "billing_fluxaccount_changelist", whose),
                ("Grant Flux", "billing.grant_flux", "grant_flux", f"?{address}"),
                (
                    "Ledger",
                    "billing.view_fluxtransaction",
                    "billing_fluxtransaction_changelist",
                    whose,
                ),
                (
                    "Requests",
                    "billing.view_llmrequestlog",
                    "billing_llmrequestlog_changelist",
                    whose,
                ),
                ("Chats", "chats.view_chat", "chats_chat_changelist", whose),
                ("Characters", "chats.view_character", "chats_character_changelist", whose),
            ),
            "may_see_keys": request.user.has_perm("accounts.view_apikey"),
            "may_add_key": request.user.has_perm("accounts.add_apikey")
            and self.may_touch(request, user),
            "keys": [(key, state_of(key, at)) for key in keys.of_user(user.pk)],
        }


def _owners(term: str) -> list[str]:
    """Return the users whose keys begin like this; a bare public id has to be whole."""
    public_id = term.removeprefix(KEY_PREFIX)
    is_whole = len(public_id) == PUBLIC_ID_LENGTH
    if not public_id or not BASE62.issuperset(public_id) or (public_id == term and not is_whole):
        return []
    found = APIKey.objects.filter(public_id__startswith=public_id).order_by("public_id")
    return list(dict.fromkeys(found.values_list("user_id", flat=True)[:MAX_OWNERS]))
