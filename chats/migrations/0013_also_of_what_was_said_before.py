"""Look at the messages that were there before their CHECK. Locks nobody out."""

from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("chats", "0012_superseded_contents")]
    operations = [ValidateConstraint("chatmessage", "chat_message_superseded_bounded")]
