"""The parts of a character are in an order that begins at 0."""

from django.db import migrations
from django.db.models import CheckConstraint, Q

LISTS = {
    "avatarmodel": "character_avatar_model",
    "capability": "character_capability",
    "prompt": "character_prompt",
    "translation": "character_i18n",
}


class Migration(migrations.Migration):
    dependencies = [("chats", "0010_additions")]
    operations = [
        migrations.AddConstraint(
            model,
            CheckConstraint(name=f"{table}_position_not_negative", condition=Q(position__gte=0)),
        )
        for model, table in LISTS.items()
    ]
