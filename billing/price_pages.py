"""The price book: what is in force, what was, and how a new version is published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django import forms
from django.contrib import admin
from django.core.validators import MinValueValidator
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from airi_server.pages.operators import ReadOnlyAdmin
from airi_server.runtime import audit
from billing import options, prices
from billing.book_pages import display
from billing.models import PriceVersion

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[PriceVersion]
else:
    ModelForm = forms.ModelForm

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
SHOWN: Final = 50


class PriceForm(ModelForm):
    """A new version; the note says why, because the row can never be edited."""

    note = forms.CharField(max_length=200)

    class Meta:
        model = PriceVersion
        fields = ("model", *RATES, "note")
        widgets: ClassVar[dict[str, Any]] = {"model": forms.TextInput}

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name in self.fields.keys() & set(RATES):
            self.fields[name].validators.append(MinValueValidator(0))
        # Empty is: what the provider charges is not known. A page to look at has no such fields.
        for name in self.fields.keys() & set(RATES[5:]):
            self.fields[name].required = False


class InForceFilter(admin.SimpleListFilter):
    title = "in force"
    parameter_name = "in_force"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "In force now")]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[PriceVersion]
    ) -> QuerySet[PriceVersion]:
        # Annotated below, which is beyond a checker of types.
        newest = {"is_newest": True}
        return queryset.filter(**newest) if self.value() == "yes" else queryset


class PricePages(ReadOnlyAdmin):
    form = PriceForm
    list_display = (
        "id", "model_", "in_force", "flux_per_1k_input", "flux_per_1k_output",
        "flux_per_1k_cached", "flux_per_request", "created_by", "created_at",
    )  # fmt: skip
    list_filter = (InForceFilter,)
    search_fields = ("model__exact",)
    search_help_text = "A whole model name"
    empty_title = "No prices here"
    empty_help = (
        "Without a price of its own a model costs what the default does, which the settings "
        "FLUX_PER_1K_TOKENS and FLUX_PER_REQUEST decide. Add a price to change that."
    )
    ordering = ("-id",)
    change_form_template = "admin/billing/priceversion/change_form.html"

    @admin.display(description="Model", ordering="model")
    def model_(self, row: PriceVersion) -> str:
        return row.model or "(default)"

    @display(description="In force", label={"in force": "success", "replaced": "default"})
    def in_force(self, row: Any) -> str:
        return "in force" if row.is_newest else "replaced"

    def get_queryset(self, request: HttpRequest) -> QuerySet[PriceVersion]:
        newer = PriceVersion.objects.filter(model=OuterRef("model"), id__gt=OuterRef("id"))
        return PriceVersion.objects.annotate(is_newest=~Exists(newer))

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

    def around(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        versions = PriceVersion.objects.filter(model=row.model).order_by("-id")[:SHOWN]
        return {"versions": versions, "row": row}

    def save_model(
        self,
        request: HttpRequest,
        obj: PriceVersion,
        form: Any,
        change: bool,  # noqa: FBT001  Django's own signature
    ) -> None:
        """Publish: requests that open from now on pin the new version."""
        given: Mapping[str, Any] = form.cleaned_data
        by = audit.Actor.of(request.user)
        obj.pk = prices.publish(**given, by=by, at=timezone.now()).pk

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Publishing has left its own row."""
