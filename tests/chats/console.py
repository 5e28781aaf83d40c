"""The console's pages of chats as a test asks for them."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.utils import quote
from django.test import Client
from django.urls import reverse


def url(page: str, *keys: str) -> str:
    """Return an address: `chat_changelist`, `chatmessage_change` and a key, ...."""
    return reverse(f"admin:chats_{page}", args=[quote(key) for key in keys])


def listed(client: Client, model: str, **query: Any) -> list[str]:
    """Return the ids that a list shows, all of its pages, in its order."""
    found, address = [], url(f"{model}_changelist")
    answer = client.get(address, query)
    while True:
        assert answer.status_code == 200, answer
        changes = answer.context["cl"]
        found += [row.pk for row in changes.result_list]
        if not changes.onward_url:
            return found
        answer = client.get(address + changes.onward_url)
