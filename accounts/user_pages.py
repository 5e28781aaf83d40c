"""People: the list that finds one, and the page that says everything about them."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from django import forms
from django.db.models import QuerySet
from django.db.models.functions import Lower
from django.http import HttpRequest
from django.utils import timezone

from accounts import keys, operators, users
from accounts.credentials import BASE62, PUBLIC_ID_LENGTH, without_secret
from accounts.edit_pages import column, instant
from accounts.forms import UserForm
from accounts.models import KEY_PREFIX, APIKey, User
from accounts.standing import standing_of, state_of
from accounts.user_action_pages import UserActionPages

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

    @column(description="verified", boolean=True)
    def verified(self, user: User) -> bool:
        return user.email_verified

    @column(description="staff", boolean=True)
    def staff(self, user: User) -> bool:
        return user.is_staff

    @column(description="standing", label={"in": "success", "off": "warning", "banned": "danger"})
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

    def around(self, request: HttpRequest, row: User) -> dict[str, Any]:
        user, whose, at = row, f"?q={row.pk}", timezone.now()
        address = urlencode({"email": user.email})
        return {
            **super().around(request, row),
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
