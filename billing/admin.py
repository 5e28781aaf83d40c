"""The books to look at: nothing here changes a row, and a new price is a new version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final
from uuid import UUID

from django import forms
from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import cached_property

from billing import options, prices
from billing.models import FluxAccount, FluxTransaction, LLMRequestLog, PriceVersion

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
    ModelForm = forms.ModelForm[PriceVersion]
    BasePaginator = Paginator[Any]
else:
    ModelAdmin, ModelForm, BasePaginator = admin.ModelAdmin, forms.ModelForm, Paginator

MAX_LISTED: Final = 10_000
RATES: Final = (
    "flux_per_1k_input",
    "flux_per_1k_output",
    "flux_per_1k_cached",
    "flux_per_request",
    "minimum_flux",
    "usd_per_1m_input",
    "usd_per_1m_output",
    "usd_per_1m_cached",
)


class BoundedPaginator(BasePaginator):
    """Counts no further than anybody pages, so that a list of millions opens at once."""

    @cached_property
    def count(self) -> int:
        newest: QuerySet[Any] = self.object_list[:MAX_LISTED]  # type: ignore[assignment]
        return newest.count()


class ReadOnlyAdmin(ModelAdmin):
    """Evidence: to be found and read, never changed here, by nobody."""

    actions = None
    show_full_result_count = False
    paginator = BoundedPaginator
    search_fields: ClassVar[tuple[str, ...]] = ("user_id__exact",)
    search_help_text: ClassVar[str] = "A whole user id"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        """Find the row; Django lets NUL through to a database that refuses to look for it."""
        return None if "\x00" in object_id else super().get_object(request, object_id, from_field)


@admin.register(FluxAccount)
class FluxAccountAdmin(ReadOnlyAdmin):
    list_display = ("user_id", "balance", "held", "ledger_seq", "frozen", "updated_at")
    list_filter = ("frozen",)
    ordering = ("user_id",)


@admin.register(FluxTransaction)
class FluxTransactionAdmin(ReadOnlyAdmin):
    list_display = (
        "user_id",
        "user_seq",
        "kind",
        "amount",
        "balance_after",
        "description",
        "request_id",
        "created_at",
    )
    list_filter = ("kind",)
    search_fields = ("user_id__exact", "request_id__exact")
    search_help_text = "A whole user id, or a whole key"
    ordering = ("-id",)


@admin.register(LLMRequestLog)
class LLMRequestLogAdmin(ReadOnlyAdmin):
    list_display = (
        "id",
        "user_id",
        "model",
        "state",
        "outcome",
        "flux_charged",
        "unbilled",
        "hold",
        "opened_at",
    )
    list_filter = ("state", "kind")
    search_help_text = "A whole request id (x-request-id) or user id"
    ordering = ("-id",)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[LLMRequestLog], search_term: str
    ) -> tuple[QuerySet[LLMRequestLog], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        try:
            return queryset.filter(id=UUID(term)), False
        except ValueError:
            return queryset.filter(user_id=term), False


class PriceForm(ModelForm):
    """A new version; the note says why, because the row can never be edited."""

    note = forms.CharField(max_length=200)

    class Meta:
        model = PriceVersion
        fields = ("model", *RATES, "note")
        widgets: ClassVar[dict[str, Any]] = {"model": forms.TextInput}

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # Empty is: what the provider charges is not known. A page to look at has no such fields.
        for name in self.fields.keys() & set(RATES[5:]):
            self.fields[name].required = False


@admin.register(PriceVersion)
class PriceVersionAdmin(ReadOnlyAdmin):
    form = PriceForm
    list_display = (
        "id",
        "model",
        "flux_per_1k_input",
        "flux_per_1k_output",
        "flux_per_1k_cached",
        "flux_per_request",
        "created_by",
        "created_at",
    )
    search_fields = ("model__exact",)
    search_help_text = "A whole model name"
    ordering = ("-id",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.add_priceversion")

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Begin with the price in force for `?model=`, or with the default options."""
        model = request.GET.get("model", "").replace("\x00", "")
        newest = PriceVersion.objects.filter(model=model).order_by("-id").first()
        if newest:
            return {"model": model} | {name: getattr(newest, name) for name in RATES}
        rate = options.FLUX_PER_1K_TOKENS.read()
        flat = options.FLUX_PER_REQUEST.read()
        return {"model": model, "flux_per_request": flat} | dict.fromkeys(RATES[:3], rate)

    def save_model(
        self,
        request: HttpRequest,
        obj: PriceVersion,
        form: Any,
        change: bool,  # noqa: FBT001  Django's own signature
    ) -> None:
        """Publish: requests that open from now on pin the new version."""
        obj.pk = prices.publish(
            **form.cleaned_data, by=request.user.get_username(), at=timezone.now()
        ).pk
