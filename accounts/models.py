"""Who may call: people, and the API keys they hand to programs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import CheckConstraint, F, Index, Q, UniqueConstraint, Value
from django.db.models.functions import Length, Lower
from django.db.models.lookups import Exact

from airi_server.kernel import ids

KEY_PREFIX = "sk-airi-"


class UserManager(BaseUserManager["User"]):
    """Django's way to users. Refusals in sentences are `accounts.users`."""

    def create_user(
        self,
        email: str,
        password: str | None = None,
        *,
        at: datetime | None = None,
        **columns: Any,
    ) -> User:
        """Insert a user, without a password one who cannot log in with any.

        Django's own commands have no clock to pass: for them `at` is now.
        """
        at = at or datetime.now(UTC)
        columns = {"created_at": at, "updated_at": at, **columns}
        user = self.model(email=email, **columns)
        user.set_password(password)
        user.save(using=self._db, force_insert=True)
        return user

    def create_superuser(self, email: str, password: str | None = None, **columns: Any) -> User:
        every_power = {"is_staff": True, "is_superuser": True, "email_verified": True}
        return self.create_user(email, password, **{**every_power, **columns})

    def get_by_natural_key(self, username: str | None) -> User:
        """Find by e-mail, in any case; through the unique index on `Lower("email")`."""
        return self.alias(lower_email=Lower("email")).get(lower_email=Lower(Value(username or "")))


class User(AbstractBaseUser, PermissionsMixin):
    """A person. `id` is opaque and what every other table calls them.

    A ban without an end lasts; one with an end is over at `ban_expires_at`, whatever `banned`
    still says. Devices that were known before `devices_reset_at` are not any more. `last_seen_at`
    is true to two minutes. Written by `accounts.users`, and the last by `accounts.credentials`.
    """

    id = models.TextField(primary_key=True, default=ids.nanoid, editable=False)
    name = models.CharField(max_length=200, blank=True)
    email = models.EmailField()
    email_verified = models.BooleanField(default=False)
    image = models.TextField(null=True, blank=True)  # noqa: DJ001  NULL: never had one (contract)
    banned = models.BooleanField(default=False)
    ban_reason = models.CharField(max_length=500, blank=True)
    ban_expires_at = models.DateTimeField(null=True, blank=True)
    is_staff = models.BooleanField("may enter the admin", default=False)
    is_active = models.BooleanField("may log in and call", default=True)
    devices_reset_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_seen_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        db_table = "user"
        permissions = [
            ("ban_user", "Can ban users"),
            ("unban_user", "Can end bans"),
            ("verify_user", "Can verify addresses"),
            ("set_user_password", "Can set passwords"),
        ]
        indexes = [
            Index(name="user_newest", fields=["-created_at", "id"]),
            Index(name="user_by_verified", fields=["email_verified", "-created_at", "id"]),
            *(
                Index(name=f"user_{claim}", fields=["-created_at", "id"], condition=condition)
                for claim, condition in (
                    ("banned", Q(banned=True)),
                    ("staff", Q(is_staff=True)),
                    ("inactive", Q(is_active=False)),
                )
            ),
        ]
        constraints = [
            UniqueConstraint(Lower("email"), name="user_email_uniq"),
            # Ids become parts of Redis keys and channel groups.
            CheckConstraint(name="user_id_shape", condition=Q(id__regex=r"^[A-Za-z0-9_-]{1,64}$")),
            CheckConstraint(
                name="user_email_shape", condition=Q(email__regex=r"^[^@\s]+@[^@\s]+$")
            ),
            CheckConstraint(
                name="user_ban_details_only_with_a_ban",
                condition=Q(banned=True) | Q(ban_reason="", ban_expires_at__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return self.email

    def is_banned(self, at: datetime) -> bool:
        return self.banned and (self.ban_expires_at is None or self.ban_expires_at > at)


class APIKey(models.Model):
    """A secret that speaks for its user, within its own limits. Written by `accounts.keys`.

    `secret_hash` is the SHA-256 of the whole key, which nobody stores. Empty lists allow
    everything. Spending limits are whole Flux, NULL is none. Rates: NULL is the operator's
    default, 0 is no limit. `last_used_at` is true to the minute.
    """

    public_id = models.CharField(max_length=12, editable=False)
    user = models.ForeignKey(
        User, on_delete=models.CASCADE, related_name="api_keys", db_index=False
    )
    name = models.CharField(max_length=100)
    secret_hash = models.BinaryField()
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)
    disabled_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    allowed_models = ArrayField(models.TextField(), default=list, blank=True)
    allowed_addresses = ArrayField(models.TextField(), default=list, blank=True)
    limit_day = models.BigIntegerField(null=True, blank=True)
    limit_month = models.BigIntegerField(null=True, blank=True)
    limit_total = models.BigIntegerField(null=True, blank=True)
    requests_per_minute = models.IntegerField(null=True, blank=True)
    tokens_per_minute = models.IntegerField(null=True, blank=True)
    parallel_requests = models.IntegerField(null=True, blank=True)

    class Meta:
        db_table = "api_key"
        verbose_name = "API key"
        constraints = [
            # A constraint, not `unique=True`: what that adds for LIKE has no name of ours.
            UniqueConstraint(name="api_key_public_id_uniq", fields=["public_id"]),
            CheckConstraint(
                name="api_key_public_id_shape", condition=Q(public_id__regex="^[A-Za-z0-9]{12}$")
            ),
            CheckConstraint(
                name="api_key_secret_hash_is_sha256", condition=Exact(Length("secret_hash"), 32)
            ),
            CheckConstraint(name="api_key_name_not_empty", condition=~Q(name="")),
            CheckConstraint(
                name="api_key_expires_after_creation",
                condition=Q(expires_at__isnull=True) | Q(expires_at__gt=F("created_at")),
            ),
            CheckConstraint(
                name="api_key_lists_are_short",
                condition=Q(allowed_models__len__lte=100, allowed_addresses__len__lte=100),
            ),
            CheckConstraint(
                name="api_key_limits_positive",
                condition=(Q(limit_day__isnull=True) | Q(limit_day__gt=0))
                & (Q(limit_month__isnull=True) | Q(limit_month__gt=0))
                & (Q(limit_total__isnull=True) | Q(limit_total__gt=0)),
            ),
            CheckConstraint(
                name="api_key_rates_not_negative",
                condition=(Q(requests_per_minute__isnull=True) | Q(requests_per_minute__gte=0))
                & (Q(tokens_per_minute__isnull=True) | Q(tokens_per_minute__gte=0))
                & (Q(parallel_requests__isnull=True) | Q(parallel_requests__gte=0)),
            ),
        ]
        indexes = [
            Index(name="api_key_user_newest", fields=["user", "-id"]),
            # For LIKE: operators have the beginning of a key.
            Index(name="api_key_begins", fields=["public_id"], opclasses=["varchar_pattern_ops"]),
        ]

    def __str__(self) -> str:
        return self.prefix

    @property
    def prefix(self) -> str:
        """The part of the key that may be shown."""
        return KEY_PREFIX + self.public_id

    @property
    def is_restricted(self) -> bool:
        """Whether the key may do less than its user: a key like that manages no keys."""
        return bool(
            self.allowed_models
            or self.allowed_addresses
            or self.expires_at
            or any((self.limit_day, self.limit_month, self.limit_total))
            or any((self.requests_per_minute, self.tokens_per_minute, self.parallel_requests))
        )
