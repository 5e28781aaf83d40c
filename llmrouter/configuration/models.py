"""The router's configuration: rows an operator edits, and the revisions they publish.

The newest revision is what every instance routes by; the rows always agree with it, because
`publishing.publish` writes both.
"""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import CheckConstraint, Deferrable, F, Func, Q, UniqueConstraint
from django.db.models.lookups import Exact

from airi_server.kernel import sealing
from llmrouter.configuration import origins, tree

NOTE_LENGTH = 200


def _codes_of_http(column: str) -> Func:
    """Every element is a status code; no list says nothing.

    Named twice as an argument: Django asks the database for what a form brings, as parameters.
    """
    return Func(
        F(column),
        F(column),
        template="100 <= ALL (%(expressions)s)",
        arg_joiner=") AND 599 >= ALL (",
        output_field=models.BooleanField(),
    )


def _one_of(column: str, words: str) -> Func:
    """One of these words; stored as one constant, which a dump and its restore leave alone."""
    return Func(
        F(column),
        template=f"(%(expressions)s)::text = ANY ('{{{words}}}'::text[])",
        output_field=models.BooleanField(),
    )


def _is_an_object(column: str) -> Exact:
    kind = Func(F(column), function="jsonb_typeof", output_field=models.TextField())
    return Exact(kind, "object")


class RouterDefaults(models.Model):
    """What holds where a model or an upstream says nothing. One row."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    per_attempt_timeout_ms = models.IntegerField(default=30_000)
    full_chain_timeout_ms = models.IntegerField(default=60_000)
    first_byte_timeout_ms = models.IntegerField(null=True, blank=True)
    idle_timeout_ms = models.IntegerField(null=True, blank=True)
    first_event_idle_ms = models.IntegerField(
        null=True,
        blank=True,
        help_text="Silence of a stream before anything is generated. Empty: 300,000.",
    )
    answer_timeout_ms = models.IntegerField(
        null=True,
        blank=True,
        help_text="A plain answer, all attempts together. Empty: 600,000.",
    )
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
                & (Q(idle_timeout_ms__isnull=True) | Q(idle_timeout_ms__gt=0))
                & (Q(first_event_idle_ms__isnull=True) | Q(first_event_idle_ms__gt=0))
                & (Q(answer_timeout_ms__isnull=True) | Q(answer_timeout_ms__gt=0)),
            ),
            CheckConstraint(
                name="router_defaults_codes_of_http",
                condition=_codes_of_http("fallback_http_codes"),
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
        default=True, help_text="Whether a timeout moves on to the next upstream."
    )
    ask_again_after_timeout = models.BooleanField(
        default=False,
        help_text="Whether a plain answer that takes too long is asked for elsewhere. The first "
        "upstream may bill for it as well.",
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
            CheckConstraint(
                name="router_model_surface_known", condition=_one_of("surface", "llm,tts")
            ),
            CheckConstraint(
                name="router_model_provider_known",
                condition=_one_of(
                    "provider", '"",azure,dashscope-cosyvoice,volcengine,stepfun,openai'
                ),
            ),
            CheckConstraint(
                name="router_model_max_tokens_field_known",
                condition=_one_of("max_tokens_field", "max_tokens,max_completion_tokens"),
            ),
            CheckConstraint(
                name="router_model_tokenizer_known",
                condition=_one_of("tokenizer", '"",o200k_base,cl100k_base'),
            ),
            CheckConstraint(
                name="router_model_codes_of_http", condition=_codes_of_http("trigger_codes")
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
    allow = ArrayField(
        models.CharField(max_length=64),
        default=list,
        blank=True,
        help_text="Fields of requests it takes beyond the usual ones, comma-separated; * for all "
        "but the dangerous.",
    )
    omit = ArrayField(
        models.CharField(max_length=16),
        default=list,
        blank=True,
        help_text="What it does not know of what we add: max_tokens, stream_options.",
    )
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
            CheckConstraint(
                name="router_upstream_adapter_params_are_an_object",
                condition=_is_an_object("adapter_params"),
            ),
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

    @property
    def origin(self) -> str:
        """Where it may be sent: what its seal names, else where it stands; empty if it is new."""
        if not self.sealed:
            return ""
        return sealing.origin_of(self.sealed) or origins.of(self.upstream.base_url)


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
            CheckConstraint(
                name="router_revision_tree_is_an_object", condition=_is_an_object("tree")
            ),
        ]

    def __str__(self) -> str:
        return f"revision {self.number}"
