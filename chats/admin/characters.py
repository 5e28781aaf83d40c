"""Characters: the list that finds one, and the page with all its parts but the owner's keys."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import orjson
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from unfold.enums import ActionVariant

from accounts import users
from airi_server.kernel import sealing
from airi_server.pages.columns import action, display, instant, link_to, number
from airi_server.pages.filters import Selection, TimeFilter
from airi_server.pages.operators import holds
from airi_server.pages.paging import SCATTERED, DatedKeysetQuery, KeysetQuery
from airi_server.runtime import audit
from chats.admin import lookup
from chats.admin.base import ChatReasonForm, ChatStateFilter, ConsolePages, OwnerFilter, choose
from chats.characters import deletion
from chats.characters.models import Character

DELETE: Final = "chats.delete_character"
HISTORY: Final = 20


class CharacterPages(ConsolePages):
    list_display = ("created", "named", "version", "person", "likes", "bookmarks", "state")
    list_display_links = ("created", "named")
    list_filter = (TimeFilter, ChatStateFilter, OwnerFilter)
    search_fields = ("id",)
    search_help_text = (
        "A whole character id, its whole name in any language, a part of the name its maker gave "
        "it, or the owner's user id or e-mail address"
    )
    empty_title = "No characters here"
    empty_help = "Widen the time, or search for a whole id or name, or for the owner."
    change_form_template = "console/chat_character.html"
    person_column = "owner_id"
    actions_detail: Any = ("remove",)
    has_remove_permission = holds(DELETE)
    export_columns = (
        "id", "character_id", "version", "owner_id", "email", "creator_id", "likes_count",
        "bookmarks_count", "created_at", "updated_at", "deleted_at",
    )  # fmt: skip

    @admin.display(description="Created (UTC)")
    def created(self, row: Character) -> str:
        return instant(row.created_at)

    @admin.display(description="Name")
    def named(self, row: Character) -> str:
        return row.character_id

    @admin.display(description="Owner")
    def person(self, row: Character) -> str:
        return self.named_person(row)

    @admin.display(description="Likes")
    def likes(self, row: Character) -> str:
        return number(row.likes_count)

    @admin.display(description="Bookmarks")
    def bookmarks(self, row: Character) -> str:
        return number(row.bookmarks_count)

    @display(description="State", label={"live": "success", "deleted": "warning"})
    def state(self, row: Character) -> str:
        return "live" if row.deleted_at is None else "deleted"

    def search_for(self, selection: Selection, term: str) -> None:
        if lookup.is_character(term):
            selection.indexed &= Q(pk=term)
        elif users.emails_of([term]) or lookup.has_characters(term):
            choose(selection, term)
        elif named := lookup.characters_named(term):
            selection.indexed &= Q(pk__in=named)
        else:
            selection.filtered &= Q(character_id__icontains=term)

    def line(self, selection: Selection) -> KeysetQuery:
        """Return characters by age, of one owner or of everybody."""
        rows = Character.objects.filter(selection.indexed)
        if selection.begin is not None:
            rows = rows.filter(created_at__gte=selection.begin)
        if selection.end is not None:
            rows = rows.filter(created_at__lt=selection.end)
        filtered, owner = selection.filtered, selection.user_id
        if owner is None:
            return DatedKeysetQuery(rows, "id", filtered=filtered, slice=SCATTERED)
        return DatedKeysetQuery(
            rows, "id", filtered=filtered, within="owner_id", value=owner, slice=SCATTERED
        )

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        """Offer to delete what is not deleted."""
        character = self.get_object(request, unquote(object_id))
        offered: list[Any] = super().get_actions_detail(request, object_id)  # type: ignore[misc]
        return offered if character is not None and character.deleted_at is None else []

    @action(
        description="Delete",
        url_path="remove",
        permissions=["remove"],
        variant=ActionVariant.DANGER,
    )
    def remove(self, request: HttpRequest, object_id: str) -> HttpResponse:
        character: Character = self.found(request, object_id)
        here = link_to("chats_character_change", character.pk)

        def act(cleaned: Mapping[str, Any], at: datetime) -> HttpResponse:
            deletion.delete_character(character_id=character.pk, at=at)
            reason = cleaned["reason"]
            sentence = f"Deleted the character: {reason}"
            self.record(request, DELETE, character, sentence, facts={"reason": reason})
            messages.success(request, "Deleted. Nobody sees the character any more.")
            return redirect(here)

        why = f"Nobody will see {character} any more, its owner neither. It stays listed here."
        form = ChatReasonForm(request.POST or None)
        return self.confirm(request, form, act, title="Delete the character", why=why, back=here)

    def extra_context(self, request: HttpRequest, row: Character) -> dict[str, Any]:
        emails = users.emails_of([row.owner_id, row.creator_id])
        return {
            "character": row,
            "title": str(row),
            "subtitle": None,
            "owner": emails.get(row.owner_id, ""),
            "owner_url": link_to("accounts_user_change", row.owner_id),
            "creator": emails.get(row.creator_id, ""),
            "creator_url": link_to("accounts_user_change", row.creator_id),
            "cover": getattr(row, "cover", None),
            "capabilities": [
                (one, sealing.key_id_of(one.sealed_config))
                for one in row.capabilities.order_by("position")
            ],
            "avatar_models": [
                (one, orjson.dumps(one.config, option=orjson.OPT_INDENT_2).decode())
                for one in row.avatar_models.order_by("position")
            ],
            "translations": list(row.i18n.order_by("position")),
            "prompts": list(row.prompts.order_by("position")),
            "entries": audit.of(audit.Subject.of(row), limit=HISTORY),
        }
