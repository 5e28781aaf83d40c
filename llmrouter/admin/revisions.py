"""What was published, by whom and why; an older one is put in force again after a look at it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from airi_server.pages.columns import action
from airi_server.pages.operators import OperatorAdmin
from airi_server.runtime import audit
from llmrouter.admin.publishing import PUBLISH, MayPublish, Scripted, changed_lines
from llmrouter.configuration import changes, publishing, tree
from llmrouter.configuration.models import NOTE_LENGTH, RouterRevision


class PublishAgainForm(forms.Form):
    """Why, and which revision was in force when the operator looked."""

    note = forms.CharField(
        max_length=NOTE_LENGTH, label="Why", help_text="Kept for ever with the new revision."
    )
    expected = forms.IntegerField(widget=forms.HiddenInput)


class RevisionPages(Scripted, MayPublish, OperatorAdmin):
    list_display = ("title", "published_at", "published_by", "note")
    search_fields = ("note", "=published_by")
    search_help_text = "Words of the note, or a whole e-mail address"
    fields = readonly_fields = (
        "number",
        "published_at",
        "published_by",
        "note",
        "changes",
        "configuration",
    )
    ordering = ("-number",)
    actions = None
    actions_detail = ("publish_again",)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_publish_permission(self, request: HttpRequest, _object_id: str | None = None) -> bool:
        return request.user.has_perm(PUBLISH)

    @admin.display(description="Revision", ordering="number")
    def title(self, revision: RouterRevision) -> str:
        return str(revision.number)

    @admin.display
    def changes(self, revision: RouterRevision) -> SafeString:
        return render_to_string("console/router_diff.html", {"lines": changed_lines(revision.diff)})

    @admin.display
    def configuration(self, revision: RouterRevision) -> SafeString:
        shown = orjson.dumps(tree.redacted(revision.tree), option=orjson.OPT_INDENT_2)
        return format_html('<pre class="router-tree">{}</pre>', shown.decode())

    @action(
        description="Publish again",
        url_path="publish-again",
        permissions=["publish"],
        icon="settings_backup_restore",
    )
    def publish_again(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show what would change against what is in force, and publish it once."""
        older: RouterRevision = self.found(request, object_id)
        newest = publishing.newest()
        back = f"admin:{self.opts.app_label}_{self.opts.model_name}_change"

        def act(cleaned: Mapping[str, Any], at: datetime) -> HttpResponse:
            # If it is refused, the form comes again with the changes against this revision.
            form.data = {**request.POST.dict(), "expected": str(number)}
            published = _publish_again(request, older, cleaned, at)
            said = f"Published {published}." if published else "It is in force already."
            messages.success(request, said)
            return redirect(back, published.number if published else older.number)

        number = newest.number if newest else 0
        form = PublishAgainForm(request.POST or None, initial={"expected": number})
        before = newest.tree if newest else {}
        return self.confirm(
            request,
            form,
            act,
            title=f"Publish {older} again",
            why=f"This is what would change against revision {number}, which is in force.",
            back=reverse(back, args=[older.number]),
            template="console/router_again.html",
            context={
                "button": "Publish again",
                "lines": changed_lines(changes.diff(before, older.tree)),
                "in_force": number,
            },
        )


def _publish_again(
    request: HttpRequest, older: RouterRevision, cleaned: Mapping[str, Any], at: datetime
) -> RouterRevision | None:
    """Publish; None if it is in force, also when a double click has just put it there.

    Raises:
        RevisionConflict: Something else was published since the operator looked.
    """
    try:
        return publishing.republish(
            older.number,
            note=cleaned["note"],
            by=audit.Actor.of(request.user),
            at=at,
            expected=cleaned["expected"],
        )
    except publishing.RevisionConflict:
        if publishing.current_tree() == tree.parse(older.tree):
            return None
        raise
