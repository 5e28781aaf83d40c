"""What a CHECK says, Django can ask the database before it saves a form."""

from __future__ import annotations

from contextlib import suppress

import pytest
from django.apps import apps
from django.core.exceptions import ValidationError
from django.db.models import CheckConstraint

from llmrouter.configuration.models import RouterModel

OURS = ("accounts", "billing", "chats", "llmrouter", "runtime")
CHECKS = [
    pytest.param(model, constraint, id=constraint.name)
    for app in OURS
    for model in apps.get_app_config(app).get_models()
    for constraint in model._meta.constraints
    if isinstance(constraint, CheckConstraint)
]


@pytest.mark.django_db
@pytest.mark.parametrize(("model", "constraint"), CHECKS)
def test_every_check_can_be_asked(caplog, model, constraint):
    with suppress(ValidationError):
        constraint.validate(model, model())

    # Django lets a row pass that it could not ask about. Sums of nothing but NULLs have no types.
    assert "placeholders" not in caplog.text


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("codes", "is_let_in"), [([429, 500], True), ([99], False), ([600], False)]
)
def test_codes_are_those_of_http_before_they_are_saved(codes, is_let_in):
    model = RouterModel(name="m", trigger_codes=codes)

    if is_let_in:
        model.validate_constraints()
    else:
        with pytest.raises(ValidationError, match="router_model_codes_of_http"):
            model.validate_constraints()
