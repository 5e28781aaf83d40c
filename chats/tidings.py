"""What happened in chats outside of the sockets, told to every instance after its commit.

Works from any thread. A hint like all others: whoever hears it reads the rows.
"""

from __future__ import annotations

from typing import Final

from django.db import transaction

from airi_server.kernel import notify
from chats.messages import Sent

TOPIC: Final = "chats.sent"


def tell(chat_id: str, sent: Sent) -> None:
    """Have the members' clients told, once and if the caller's transaction commits.

    Without Redis nobody is told; then a live chat is caught up with by the head watch.
    """
    if not sent.is_new:
        return
    facts = {
        "chat_id": chat_id,
        "from_seq": sent.from_seq,
        "to_seq": sent.to_seq,
        "members": list(sent.members),
    }
    transaction.on_commit(lambda: notify.send(TOPIC, **facts))
