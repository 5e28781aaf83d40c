"""Another master key: whatever characters hold is sealed again, and stays its owner's."""

from __future__ import annotations

import io

import pytest
from django.core.management import CommandError, call_command

from airi_server.kernel import sealing
from chats.characters import characters, resealing
from chats.characters.models import Capability
from tests.chats.test_characters_seals import OTHER_MASTER
from tests.factories import characters as make

pytestmark = pytest.mark.django_db


def rotate(*options):
    out, err = io.StringIO(), io.StringIO()
    call_command("rotate-master-key", *options, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def key_of(character):
    (config,) = characters.details(caller="ria", character_id=character.pk).configs.values()
    return config["apiKey"]


@pytest.fixture
def airi(settings):
    """A character that was sealed under the master key before this one."""
    airi = make.character()
    settings.LLM_ROUTER_MASTER_KEY_PREVIOUS = settings.LLM_ROUTER_MASTER_KEY
    settings.LLM_ROUTER_MASTER_KEY = OTHER_MASTER
    return airi


def test_a_capability_opens_without_the_old_master_key(airi, settings):
    out, err = rotate()

    settings.LLM_ROUTER_MASTER_KEY_PREVIOUS = ""
    assert key_of(airi) == make.KEY
    assert out == f"{sealing.master_keys().current.id}\t1\tcurrent\n"
    assert "sealed again: 1" in err


def test_a_second_run_changes_nothing(airi):
    rotate()
    before = list(Capability.objects.values_list())

    assert "sealed again: 0" in rotate()[1]
    assert list(Capability.objects.values_list()) == before


def test_a_dry_run_only_counts(airi):
    before = list(Capability.objects.values_list())

    out, err = rotate("--dry-run")

    assert out.endswith("\t1\told\n")
    assert err == "would be sealed again: 1\n"
    assert list(Capability.objects.values_list()) == before


def test_every_batch_is_sealed_and_what_was_sealed_already_is_left(airi, monkeypatch):
    monkeypatch.setattr(resealing, "BATCH", 2)
    for _ in range(3):
        make.character()
    newer = set(Capability.objects.exclude(character=airi).values_list("sealed_config"))

    found = resealing.reseal()

    assert (found.sealed_again, dict(found.counts)) == (1, {sealing.master_keys().current.id: 4})
    assert newer < set(Capability.objects.values_list("sealed_config"))


def test_what_does_not_open_is_named_and_does_not_hold_the_others_up(airi, settings):
    lost = make.character()
    taken = Capability.objects.get(character=airi).sealed_config
    Capability.objects.filter(character=lost).update(sealed_config=taken)

    for arguments in (["--dry-run"], []):
        with pytest.raises(CommandError, match=f"of character {lost.pk}$"):
            rotate(*arguments)

    settings.LLM_ROUTER_MASTER_KEY_PREVIOUS = ""
    assert key_of(airi) == make.KEY
    assert Capability.objects.get(character=lost).sealed_config == taken
