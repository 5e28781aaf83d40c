"""What operators type about one account."""

from __future__ import annotations

from django import forms

from airi_server.kernel import ids
from billing import adjustments, freezes
from billing.models import FluxAccount


class AdjustForm(forms.Form):
    """Carries the ledger as the operator saw it, and a key against the second click."""

    change = forms.IntegerField(
        min_value=-adjustments.MAX_CHANGE,
        max_value=adjustments.MAX_CHANGE,
        help_text="Whole Flux to add; with a minus, to take away.",
    )
    reason = forms.CharField(
        max_length=adjustments.MAX_REASON, help_text="The user reads it in their history."
    )
    expected_seq = forms.IntegerField(min_value=0, max_value=2**63 - 1, widget=forms.HiddenInput)
    key = forms.RegexField(r"^[A-Za-z0-9_-]{1,64}$", widget=forms.HiddenInput)

    @classmethod
    def of(cls, account: FluxAccount) -> AdjustForm:
        return cls(initial={"expected_seq": account.ledger_seq, "key": ids.nanoid()})

    def clean_change(self) -> int:
        change: int = self.cleaned_data["change"]
        if change == 0:
            raise forms.ValidationError("Nothing would change.")
        return change

    def look_again(self, account: FluxAccount) -> None:
        """Take what the account is now as seen: the page shows it with the refusal."""
        self.data = {**self.data.dict(), "expected_seq": account.ledger_seq}  # type: ignore[attr-defined]  # a QueryDict


class ReasonForm(forms.Form):
    """For whoever reads the audit log; the user does not see it."""

    reason = forms.CharField(
        max_length=freezes.MAX_REASON, help_text="For the audit log; the user does not see it."
    )
