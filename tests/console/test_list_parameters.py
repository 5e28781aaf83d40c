"""Every list of the console with parameters that nobody offers: shown, or shown without them."""

from __future__ import annotations

import pytest
from django.contrib import admin

from tests.console import rows
from tests.console.walk import places

LISTS = {name: place for name, place in places().items() if name.endswith("_changelist")}
NAMES = [
    "nothing", "id__exact", "user__password__startswith", "a__b__c", "%00", "after", "before", "o",
    "p", "q", "e", "_popup",
]  # fmt: skip
AT = ("from", "to")
VALUES = ["x%00y", "9" * 40, "%ff%fe"]
TIMES = [
    "0001-01-01", "9999-12-31", "9999-12-31T23:59:59.999999-14:00", "0001-01-01T00:00%2B14:00",
]  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_shown_whatever_its_address_says(name):
    keys = rows.make().keys
    client = rows.client_of(is_staff=True, is_superuser=True)
    url = LISTS[name].url(keys)
    wrong = {}

    asked = [(parameter, "x%00y") for parameter in NAMES]
    for parameter in _filters_of(name):
        asked += [(parameter, value) for value in (TIMES if parameter in AT else VALUES)]
    for parameter, value in asked:
        query = f"?{parameter}={value}"
        answer = client.get(url + query, follow=True)
        if answer.status_code != 200:
            wrong[query] = answer.status_code

    assert wrong == {}


@pytest.mark.django_db
def test_what_is_known_is_kept_beside_what_is_not():
    world = rows.make()
    client = rows.client_of(is_staff=True, is_superuser=True)
    url = LISTS["billing_llmrequestlog_changelist"].url(world.keys)

    mine = client.get(f"{url}?nothing=1&user={world.user.pk}")
    nobodys = client.get(f"{url}?nothing=1&user=nobody")

    assert len(mine.context["cl"].result_list) == 2
    assert len(nobodys.context["cl"].result_list) == 0
    assert "nothing" not in mine.context["cl"].get_query_string()


def _filters_of(name):
    """Return the parameters that a list itself offers."""
    for model, page in admin.site._registry.items():
        options = model._meta
        if name == f"{options.app_label}_{options.model_name}_changelist":
            for each in page.list_filter:
                field = each[0] if isinstance(each, tuple) else each
                yield from getattr(each, "names", None) or _lookups(field)


def _lookups(field):
    if not isinstance(field, str):
        return [getattr(field, "parameter_name", "x")]
    return [f"{field}__exact"]
