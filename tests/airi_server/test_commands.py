"""Every command of ours says with --help what it does and what each of its arguments is."""

from __future__ import annotations

import argparse

import pytest
from django.conf import settings
from django.core.management import get_commands, load_command_class

OURS = sorted(name for name, app in get_commands().items() if app in settings.FIRST_PARTY_APPS)

KNOWN = {"database"}
"""Django's own arguments, which say it in other words."""


def test_they_are_found():
    assert {"migrate", "reconcile-usage", "explain-route", "rotate-master-key"} <= set(OURS)


@pytest.mark.parametrize("name", OURS)
def test_help_is_whole(name):
    command = load_command_class(get_commands()[name], name)
    parser = command.create_parser("manage.py", name)
    text = " ".join(parser.format_help().split())

    assert command.help[0].isupper()
    assert command.help.rstrip().endswith((".", ")"))
    for action in parser._actions:
        assert action.help, action.option_strings
        has_default = action.nargs != 0 and isinstance(action.default, str)
        if has_default and action.default != argparse.SUPPRESS and action.dest not in KNOWN:
            assert f"default: {action.default}" in text
