"""The router's configuration: rows an operator edits, and the revisions they publish.

The newest revision is what every instance routes by; the rows always agree with it, because
`publishing.publish` writes both.
"""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import CheckConstraint, Deferrable, Q, UniqueConstraint

from llmrouter.configuration import tree

NOTE_LENGTH = 200


class RouterDefaults(models.Model):
    """What holds where a model or an upstream says nothing. One row."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    per_attempt_timeout_ms = models.IntegerField(default=30_000)
    full_chain_timeout_ms = models.IntegerField(default=60_000)
    first_byte_timeout_ms = models.IntegerField(null=True, blank=True)
    idle_timeout_ms = models.IntegerField(null=True, blank=True)
    fallback_http_codes = ArrayField(models.SmallIntegerField())

    class Meta:
        db_table = "router_defaults"
        verbose_name = verbose_name_plural = "router defaults"
        constraints = [
            CheckConstraint(name="router_defaults_one_row", condition=Q(id=1)),
            CheckConstraint(
                name="router_defaults_timeouts_positive",
                condition=Q(per_attempt_timeout_ms__gt=0, full_chain_timeout_ms__gt=0)
                & (Q(first_byte_timeout_ms__isnull=True) | Q(first_byte_timeout_ms__gt=0))
                & (Q(idle_timeout_ms__isnull=True) | Q(idle_timeout_ms__gt=0)),
            ),
        ]

    def __str__(self) -> str:
        return "router defaults"


class RouterModel(models.Model):
    """One public model name on one surface."""

    class Surface(models.TextChoices):
        LLM = tree.LLM, "chat"
        TTS = tree.TTS, "speech"

    class Provider(models.TextChoices):
        AZURE = "azure", "Azure"
        DASHSCOPE_COSYVOICE = "dashscope-cosyvoice", "DashScope CosyVoice"
        VOLCENGINE = "volcengine", "Volcengine"
        STEPFUN = "stepfun", "StepFun"
        OPENAI = "openai", "OpenAI-compatible"

    name = models.CharField(max_length=200, help_text="What clients send as `model`.")
    surface = models.CharField(max_length=3, choices=Surface, default=Surface.LLM)
    provider = models.CharField(
        max_length=32, choices=Provider, blank=True, help_text="Speech models only."
    )
    trigger_codes = ArrayField(
        models.SmallIntegerField(),
        null=True,
        blank=True,
        help_text="Statuses that move on to the next key. Empty: those of the defaults.",
    )
    on_timeout = models.BooleanField(
        default=True, help_text="Whether a timeout moves on to the next key."
    )
    max_output_tokens = models.IntegerField(
        default=tree.DEFAULT_MAX_OUTPUT_TOKENS, help_text="Most a request may ask for."
    )
    default_output_tokens = models.IntegerField(
        default=tree.DEFAULT_OUTPUT_TOKENS, help_text="Asked for when the client does not say."
    )
    max_tokens_field = models.CharField(
        max_length=24,
        choices=[(name, name) for name in ("max_tokens", "max_completion_tokens")],
        default="max_tokens",
    )
    tokenizer = models.CharField(
        max_length=16,
        choices=[(name, name) for name in ("o200k_base", "cl100k_base")],
        blank=True,
        help_text="Counts prompts that the upstream does not report. Empty: an estimate.",
    )

    class Meta:
        db_table = "router_model"
        verbose_name = "model"
        constraints = [
            UniqueConstraint(name="router_model_name_unique", fields=["surface", "name"]),
            CheckConstraint(
                name="router_model_name_without_separator",
                condition=~Q(name="") & ~Q(name__contains="|"),
            ),
            CheckConstraint(
                name="router_model_surface_has_its_provider",
                condition=Q(surface="llm", provider="") | (Q(surface="tts") & ~Q(provider="")),
            ),
            CheckConstraint(
                name="router_model_output_tokens_positive",
                condition=Q(max_output_tokens__gt=0, default_output_tokens__gt=0),
            ),
        ]

    def __str__(self) -> str:
        return self.name


class RouterUpstream(models.Model):
    """One endpoint of a model. The lowest priority is tried first."""

    model = models.ForeignKey(RouterModel, on_delete=models.CASCADE, related_name="upstreams")
    position = models.SmallIntegerField(help_text="From 1; the order of the configuration.")
    slug = models.CharField(
        max_length=200, blank=True, help_text="Name in metrics. Empty: the host."
    )
    base_url = models.CharField(max_length=500)
    override_model = models.CharField(
        max_length=200, blank=True, help_text="What this provider calls it. Empty: the same name."
    )
    header_template = models.CharField(max_length=200, default=tree.DEFAULT_HEADER)
    timeout_ms = models.IntegerField(null=True, blank=True)
    priority = models.IntegerField(
        null=True, blank=True, help_text="Lowest first. Empty: its position."
    )
    weight = models.IntegerField(
        default=1, help_text="Share of the requests among equal priorities."
    )
    adapter_params = models.JSONField(default=dict, blank=True, help_text="Speech models only.")

    class Meta:
        db_table = "router_upstream"
        verbose_name = "upstream"
        permissions = [("probe_upstream", "Can test upstreams")]
        constraints = [
            UniqueConstraint(
                name="router_upstream_position_unique",
                fields=["model", "position"],
                deferrable=Deferrable.DEFERRED,
            ),
            UniqueConstraint(
                name="router_upstream_slug_unique",
                fields=["model", "slug"],
                condition=~Q(slug=""),
            ),
            CheckConstraint(name="router_upstream_position_from_1", condition=Q(position__gte=1)),
            CheckConstraint(
                name="router_upstream_slug_without_separator", condition=~Q(slug__contains="|")
            ),
            CheckConstraint(
                name="router_upstream_base_url_is_http",
                condition=Q(base_url__startswith="http://") | Q(base_url__startswith="https://"),
            ),
            CheckConstraint(
                name="router_upstream_header_has_a_key",
                condition=Q(header_template__contains="{KEY}"),
            ),
            CheckConstraint(
                name="router_upstream_timeout_positive",
                condition=Q(timeout_ms__isnull=True) | Q(timeout_ms__gt=0),
            ),
            CheckConstraint(
                name="router_upstream_priority_not_negative",
                condition=Q(priority__isnull=True) | Q(priority__gte=0),
            ),
            CheckConstraint(name="router_upstream_weight_positive", condition=Q(weight__gt=0)),
        ]

    def __str__(self) -> str:
        return f"{self.position}. {self.slug or self.base_url}"


class RouterKey(models.Model):
    """One sealed key of an upstream. `sealed` opens only under its model's name and its own id."""

    upstream = models.ForeignKey(RouterUpstream, on_delete=models.CASCADE, related_name="keys")
    position = models.SmallIntegerField(help_text="From 1; the first key is tried first.")
    key_id = models.CharField(max_length=200, help_text="Name in metrics and logs.")
    sealed = models.TextField(editable=False)
    fingerprint = models.CharField(max_length=8, editable=False)
    disabled = models.BooleanField(default=False)

    class Meta:
        db_table = "router_key"
        verbose_name = "key"
        constraints = [
            UniqueConstraint(
                name="router_key_position_unique",
                fields=["upstream", "position"],
                deferrable=Deferrable.DEFERRED,
            ),
            UniqueConstraint(name="router_key_id_unique", fields=["upstream", "key_id"]),
            CheckConstraint(name="router_key_position_from_1", condition=Q(position__gte=1)),
            CheckConstraint(
                name="router_key_id_without_separator",
                condition=~Q(key_id="") & ~Q(key_id__contains="|"),
            ),
            CheckConstraint(name="router_key_is_sealed", condition=~Q(sealed="")),
            CheckConstraint(
                name="router_key_fingerprint_is_8_hex",
                condition=Q(fingerprint__regex=r"^([0-9a-f]{8})?$"),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.key_id} ({self.fingerprint or 'unreadable'})"


class RouterRevision(models.Model):
    """One published configuration. Never edited: to undo, publish an older one again."""

    number = models.BigIntegerField(primary_key=True)
    tree = models.JSONField()
    diff = models.TextField(help_text="Against the revision before; ciphertexts by digest.")
    note = models.CharField(max_length=NOTE_LENGTH, blank=True)
    published_by = models.CharField(max_length=254)
    published_at = models.DateTimeField()

    class Meta:
        db_table = "router_revision"
        verbose_name = "revision"
        permissions = [("publish_router_config", "Can publish router configuration")]
        constraints = [
            CheckConstraint(name="router_revision_number_positive", condition=Q(number__gt=0)),
            CheckConstraint(name="router_revision_has_a_publisher", condition=~Q(published_by="")),
        ]

    def __str__(self) -> str:
        return f"revision {self.number}"
