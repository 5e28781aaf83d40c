"""What operators type about chats and characters."""

from __future__ import annotations

from typing import Any, Final

from django import forms

from chats.models import Chat

MAX_REASON: Final = 500
MAX_READ: Final = 50
"""Messages that are read at once: enough to understand, too few to browse."""
MAX_SEQ: Final = 2**63 - 1


class ReasonForm(forms.Form):
    reason = forms.CharField(
        max_length=MAX_REASON, help_text="For the audit log; nobody in the chat sees it."
    )


class ReadForm(ReasonForm):
    """Which messages, and why."""

    first = forms.IntegerField(min_value=1, max_value=MAX_SEQ, label="From number")
    last = forms.IntegerField(
        min_value=1,
        max_value=MAX_SEQ,
        label="To number",
        help_text=f"At most {MAX_READ} numbers at once.",
    )
    field_order = ("first", "last", "reason")

    @classmethod
    def of(cls, chat: Chat, seq: str) -> ReadForm:
        """Return a form for one message, or for the newest ones."""
        if seq.isascii() and seq.isdigit() and len(seq) < 19:
            return cls(initial={"first": int(seq), "last": int(seq)})
        first = max(1, chat.last_seq - MAX_READ + 1)
        return cls(initial={"first": first, "last": max(1, chat.last_seq)})

    def clean(self) -> dict[str, Any]:
        found: dict[str, Any] = super().clean() or {}
        first, last = found.get("first"), found.get("last")
        if first is not None and last is not None:
            if last < first:
                self.add_error("last", "This lies before the first number.")
            elif last - first >= MAX_READ:
                self.add_error("last", f"Read at most {MAX_READ} numbers at once.")
        return found
