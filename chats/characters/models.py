"""Characters: what a user makes for others to talk to, and who likes or keeps it."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import CheckConstraint, F, Index, Q, UniqueConstraint
from django.db.models.functions import Lower

from airi_server.kernel import ids

ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
MAX_URL = 2048
MAX_NAME = 200
MAX_LANGUAGE = 35  # the longest tag of BCP 47 that is in use
MAX_DESCRIPTION = 4000
MAX_TAGS = 50
MAX_PROMPT = 65_536


def _id() -> models.TextField[str, str]:
    return models.TextField(primary_key=True, default=ids.nanoid, db_collation="C", editable=False)


class Character(models.Model):
    """A character. `character_id` is the name its maker gave it; it names no row.

    The owner may change it and alone sees its keys; the creator is who made it. `likes_count` and
    `bookmarks_count` are kept by triggers on the rows they count, and nobody else writes them;
    `interactions_count` and `forks_count` nobody writes at all (contract). Written by
    `chats.characters.characters` and `chats.characters.deletion`.
    """

    id = _id()
    version = models.CharField(max_length=64)
    cover_url = models.CharField(max_length=MAX_URL)
    avatar_url = models.CharField(max_length=MAX_URL, null=True)  # noqa: DJ001  NULL: has none
    character_id = models.CharField(max_length=MAX_NAME)
    creator_id = models.TextField()
    creator_role = models.CharField(max_length=MAX_NAME, null=True)  # noqa: DJ001  NULL: unsaid
    owner_id = models.TextField()
    price_credit = models.CharField(max_length=32, default="0")
    likes_count = models.IntegerField(default=0)
    bookmarks_count = models.IntegerField(default=0)
    interactions_count = models.IntegerField(default=0)
    forks_count = models.IntegerField(default=0)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "character"
        constraints = [
            CheckConstraint(name="character_id_shape", condition=Q(id__regex=ID_PATTERN)),
            CheckConstraint(
                name="character_people_shape",
                condition=Q(owner_id__regex=ID_PATTERN, creator_id__regex=ID_PATTERN),
            ),
            CheckConstraint(
                name="character_counts_not_negative",
                condition=Q(
                    likes_count__gte=0,
                    bookmarks_count__gte=0,
                    interactions_count__gte=0,
                    forks_count__gte=0,
                ),
            ),
        ]
        indexes = [
            # Both listings, newest first.
            Index(
                fields=["owner_id", "-created_at", "-id"],
                name="character_live_of_owner",
                condition=Q(deleted_at__isnull=True),
            ),
            Index(
                fields=["-created_at", "-id"],
                name="character_live",
                condition=Q(deleted_at__isnull=True),
            ),
            Index(fields=["creator_id"], name="character_of_creator"),
            # The same for operators, who see deleted ones too.
            Index(fields=["owner_id", "-created_at", "-id"], name="character_newest_of_owner"),
            Index(fields=["-created_at", "-id"], name="character_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.character_id} ({self.id})"


class Cover(models.Model):
    """The two layers of a character's cover."""

    id = _id()
    character = models.OneToOneField(Character, on_delete=models.CASCADE, related_name="cover")
    foreground_url = models.CharField(max_length=MAX_URL)
    background_url = models.CharField(max_length=MAX_URL)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        db_table = "character_cover"

    def __str__(self) -> str:
        return f"cover of {self.character_id}"


class Part(models.Model):
    """One of an ordered list of things that belong to a character; the list is replaced whole."""

    id = _id()
    position = models.SmallIntegerField()

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.id


class Capability(Part):
    """What a character can do and through whom.

    `sealed_config` holds the owner's keys and is only opened for the owner
    (`chats.characters.encryption`).
    """

    class Type(models.TextChoices):
        LLM = "llm", "Language model"
        TTS = "tts", "Speech"
        VLM = "vlm", "Sight"
        ASR = "asr", "Hearing"

    character = models.ForeignKey(
        Character, on_delete=models.CASCADE, db_index=False, related_name="capabilities"
    )
    type = models.TextField(choices=Type)
    sealed_config = models.TextField()

    class Meta:
        db_table = "character_capability"
        verbose_name_plural = "capabilities"
        constraints = [
            UniqueConstraint(
                name="character_capability_position_uniq", fields=["character", "position"]
            ),
            CheckConstraint(
                name="character_capability_position_not_negative", condition=Q(position__gte=0)
            ),
            CheckConstraint(
                name="character_capability_type_known",
                condition=Q(type__in=("llm", "tts", "vlm", "asr")),
            ),
            CheckConstraint(
                name="character_capability_config_is_sealed",
                condition=Q(sealed_config__startswith="v2."),
            ),
        ]


class AvatarModel(Part):
    """A body for a character: files for one kind of renderer."""

    class Type(models.TextChoices):
        VRM = "vrm", "VRM"
        LIVE2D = "live2d", "Live2D"
        SPINE = "spine", "Spine"

    character = models.ForeignKey(
        Character, on_delete=models.CASCADE, db_index=False, related_name="avatar_models"
    )
    name = models.CharField(max_length=MAX_NAME)
    type = models.TextField(choices=Type)
    description = models.CharField(max_length=MAX_DESCRIPTION)
    config = models.JSONField()
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        db_table = "character_avatar_model"
        constraints = [
            UniqueConstraint(
                name="character_avatar_model_position_uniq", fields=["character", "position"]
            ),
            CheckConstraint(
                name="character_avatar_model_position_not_negative", condition=Q(position__gte=0)
            ),
            CheckConstraint(
                name="character_avatar_model_type_known",
                condition=Q(type__in=("vrm", "live2d", "spine")),
            ),
        ]


class Translation(Part):
    """How a character is presented in one language."""

    character = models.ForeignKey(
        Character, on_delete=models.CASCADE, db_index=False, related_name="i18n"
    )
    language = models.CharField(max_length=MAX_LANGUAGE)
    name = models.CharField(max_length=MAX_NAME)
    tagline = models.CharField(max_length=500, null=True)  # noqa: DJ001  NULL: has none
    description = models.CharField(max_length=MAX_DESCRIPTION)
    tags = ArrayField(models.CharField(max_length=64), default=list)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        db_table = "character_i18n"
        constraints = [
            UniqueConstraint(name="character_i18n_position_uniq", fields=["character", "position"]),
            CheckConstraint(
                name="character_i18n_position_not_negative", condition=Q(position__gte=0)
            ),
            CheckConstraint(
                name="character_i18n_tags_are_few", condition=Q(tags__len__lte=MAX_TAGS)
            ),
        ]
        indexes = [
            Index(Lower("name"), F("created_at").desc(), name="character_i18n_named"),
        ]


class Prompt(Part):
    """What a character is told about itself, in one language."""

    class Type(models.TextChoices):
        SYSTEM = "system", "System"
        PERSONALITY = "personality", "Personality"
        GREETINGS = "greetings", "Greetings"

    character = models.ForeignKey(
        Character, on_delete=models.CASCADE, db_index=False, related_name="prompts"
    )
    language = models.CharField(max_length=MAX_LANGUAGE)
    type = models.TextField(choices=Type)
    content = models.CharField(max_length=MAX_PROMPT)

    class Meta:
        db_table = "character_prompt"
        constraints = [
            UniqueConstraint(
                name="character_prompt_position_uniq", fields=["character", "position"]
            ),
            CheckConstraint(
                name="character_prompt_position_not_negative", condition=Q(position__gte=0)
            ),
            CheckConstraint(
                name="character_prompt_type_known",
                condition=Q(type__in=("system", "personality", "greetings")),
            ),
        ]


class Like(models.Model):
    """A user likes a character. Written by `chats.characters.engagement` and deletions."""

    user_id = models.TextField()
    character = models.ForeignKey(
        Character, on_delete=models.CASCADE, db_index=False, related_name="likes"
    )
    created_at = models.DateTimeField()

    class Meta:
        db_table = "character_like"
        constraints = [
            UniqueConstraint(name="character_like_once", fields=["user_id", "character"]),
            CheckConstraint(
                name="character_like_user_id_shape", condition=Q(user_id__regex=ID_PATTERN)
            ),
        ]
        indexes = [
            Index(fields=["character", "-created_at", "user_id"], name="character_like_latest")
        ]

    def __str__(self) -> str:
        return f"{self.user_id} likes {self.character_id}"


class Bookmark(models.Model):
    """A user keeps a character. Written by `chats.characters.engagement` and deletions."""

    user_id = models.TextField()
    character = models.ForeignKey(
        Character, on_delete=models.CASCADE, db_index=False, related_name="bookmarks"
    )
    created_at = models.DateTimeField()

    class Meta:
        db_table = "character_bookmark"
        constraints = [
            UniqueConstraint(name="character_bookmark_once", fields=["user_id", "character"]),
            CheckConstraint(
                name="character_bookmark_user_id_shape", condition=Q(user_id__regex=ID_PATTERN)
            ),
        ]
        indexes = [
            Index(fields=["character", "-created_at", "user_id"], name="character_bookmark_latest")
        ]

    def __str__(self) -> str:
        return f"{self.user_id} keeps {self.character_id}"
