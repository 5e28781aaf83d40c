"""The price book: what is in force, what was, and how a new version is published."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.core.validators import MinValueValidator
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from airi_server.pages.confirm import Comparison, Confirmation, ConfirmPages, filled_in
from airi_server.pages.operators import ReadOnlyAdmin
from airi_server.runtime import audit
from billing import options, prices
from billing.admin.base import display
from billing.models import PriceVersion

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[PriceVersion]
else:
    ModelForm = forms.ModelForm

RATES: Final = (*prices.FLUX, *prices.COSTS)
SHOWN: Final = 50
MUCH: Final = 2
"""A charge that becomes more than so many times what it was, or less than so small a part of it, is
entered twice."""
LABELS: Final = {
    "flux_per_1k_input": "Prompt, Flux for each 1,000 tokens",
    "flux_per_1k_output": "Completion, Flux for each 1,000 tokens",
    "flux_per_1k_cached": "Cached prompt, Flux for each 1,000 tokens",
    "flux_per_request": "Whole answer without usage, Flux",
    "minimum_flux": "Least of any answer, Flux",
    "usd_per_1m_input": "Provider's prompt, USD for each 1,000,000 tokens",
    "usd_per_1m_output": "Provider's completion, USD for each 1,000,000 tokens",
    "usd_per_1m_cached": "Provider's cached prompt, USD for each 1,000,000 tokens",
}


class PriceForm(ModelForm):
    """A new version; the note says why, because the row can never be edited.

    `seen` is the version that the operator has looked at, of the model `seen_model`.
    """

    model = forms.CharField(
        required=False,
        max_length=prices.MAX_NAME,
        help_text="The public name of a model that is routed. Empty: the default, for all models "
        "without a price of their own.",
        widget=forms.TextInput(attrs={"list": "models", "autocomplete": "off"}),
    )
    is_early = forms.BooleanField(
        required=False,
        label="The model comes later",
        help_text="Keep this price for a model that is not routed yet: its first request pays it.",
    )
    note = forms.CharField(
        max_length=200, help_text="Why. For whoever reads the history of the price."
    )
    seen = forms.IntegerField(
        required=False, min_value=0, max_value=2**31 - 1, widget=forms.HiddenInput
    )
    seen_model = forms.CharField(
        required=False, max_length=prices.MAX_NAME, widget=forms.HiddenInput
    )
    field_order = ("model", "is_early", *RATES, "note", "seen", "seen_model")

    class Meta:
        model = PriceVersion
        fields = ("model", *RATES, "note")
        labels = LABELS

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name in RATES:
            self.fields[name].validators.append(MinValueValidator(0))
        # Empty is: what the provider charges is not known.
        for name in prices.COSTS:
            self.fields[name].required = False

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if "model" in cleaned:
            try:
                prices.ensure_routed(cleaned["model"], is_early=cleaned["is_early"])
            except prices.NotRouted as refusal:
                self.add_error("model", refusal.message)
        return cleaned

    def look_again(self, newest: PriceVersion | None) -> None:
        """Take the newest version of the model as seen: the page shows it."""
        seen, model = newest.pk if newest else "", self.cleaned_data["model"]
        self.data = filled_in(self, seen=seen, seen_model=model)


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


class PricePages(ConfirmPages, ReadOnlyAdmin):
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

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Ask for a price, show what it would have cost, and publish it."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        is_posted = request.method == "POST"
        form = PriceForm(request.POST) if is_posted else PriceForm(initial=_initial(request))

        def compare(cleaned: Mapping[str, Any]) -> Confirmation:
            newest = prices.newest_of(cleaned["model"])
            form.look_again(newest)
            return _compared(newest, cleaned)

        def act(cleaned: Mapping[str, Any], at: datetime) -> HttpResponse:
            wanted = dict(cleaned)
            if wanted.pop("seen_model") != wanted["model"]:
                raise prices.PriceMoved(prices.newest_of(wanted["model"]))
            by = audit.Actor.of(request.user)
            version = prices.change(**wanted, by=by, at=at)
            messages.success(request, f"{version} is in force: requests pay it from now on.")
            return redirect("admin:billing_priceversion_change", version.pk)

        return self.confirm_again(
            request,
            form,
            compare,
            act,
            moved=prices.PriceMoved,
            title="Publish the price",
            why="A price is a new version for requests that open from now on; what is under way "
            "keeps its own. The next page shows what it changes before it is published. A model "
            "has to be routed to have a price, or be said to come later.",
            back=reverse("admin:billing_priceversion_changelist"),
            template="console/price_form.html",
            context={"models": prices.routed()},
        )

    def extra_context(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        versions = PriceVersion.objects.filter(model=row.model).order_by("-id")[:SHOWN]
        again = f"{reverse('admin:billing_priceversion_add')}?{urlencode({'model': row.model})}"
        may_add = self.has_add_permission(request)
        return {"versions": versions, "row": row, "change_url": again if may_add else ""}


def _initial(request: HttpRequest) -> dict[str, Any]:
    """Begin with the price in force for `?model=`, or with the default."""
    model = request.GET.get("model", "").replace("\x00", "")
    newest = prices.newest_of(model)
    seen = {"seen": newest.pk if newest else None, "seen_model": model}
    rates = {name: _plain(rate) for name, rate in prices.in_force(model).items()}
    return {"model": model, **rates, **seen}


def _plain(rate: Any) -> Any:
    """Leave out the zeros that a column has behind the point."""
    return Decimal(f"{rate.normalize():f}") if isinstance(rate, Decimal) else rate


def _compared(newest: PriceVersion | None, cleaned: Mapping[str, Any]) -> Confirmation:
    """Say what a price would change, and what the newest requests would have cost."""
    model: str = cleaned["model"]
    before = prices.in_force(model)
    rates = [Comparison(LABELS[name], before[name], cleaned[name]) for name in RATES]
    sample = prices.repriced(model, old=prices.priced(before), new=prices.priced(cleaned))
    was_seen = cleaned["seen_model"] == model
    moved = was_seen and cleaned["seen"] != (newest.pk if newest else None)
    is_same = newest is not None and not any(each.is_changed for each in rates)
    return Confirmation(
        _about(model, newest),
        (*rates, Comparison(_sampled(sample), sample.before, sample.after)),
        facts=(("Why", cleaned["note"]), *_doubts(model, sample)),
        notice=prices.PriceMoved(newest).message if moved else "",
        refusal=prices.SAME if is_same and not moved else "",
        again=_again(rates[: len(prices.FLUX)]),
    )


def _about(model: str, newest: PriceVersion | None) -> str:
    if newest is not None:
        at = f"{newest.created_at:%Y-%m-%d %H:%M}"
        return f"Replaces {newest}, which {newest.created_by} published on {at} UTC."
    if model:
        return f"{model} has no price of its own yet: it costs what the default does."
    return "The default has no version yet: it is what the operator settings say."


def _sampled(sample: prices.Repriced) -> str:
    return f"The last {sample.requests:,} requests together, Flux"


def _doubts(model: str, sample: prices.Repriced) -> Iterator[tuple[str, str]]:
    """Say what the comparison rests on."""
    whose = f"of {model}" if model else "of models without a price of their own"
    if sample.since and sample.until:
        between = f"{sample.since:%Y-%m-%d %H:%M} to {sample.until:%Y-%m-%d %H:%M} UTC"
        yield "Compared", f"{sample.requests:,} requests {whose}, {between}"
    else:
        looked = f"{prices.LOOKED_AT:,}"
        yield "Compared", f"Nothing: no charged request {whose} is among the newest {looked}"
    if model and model not in prices.routed():
        yield "Model", f"{model} is not routed yet. The price counts from its first request"


def _again(rates: Iterable[Comparison]) -> tuple[str, ...]:
    """Name the charges that change by much, or are much."""
    limit = options.FLUX_TYPED_TWICE_ABOVE.read()
    return tuple(
        name
        for name, each in zip(prices.FLUX, rates, strict=True)
        if each.is_changed and (each.is_beyond(MUCH) or (each.after or 0) > limit)
    )
