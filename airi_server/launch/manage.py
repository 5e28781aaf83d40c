"""`./run manage …`: Django's own commands on the running stack, or on one started for them.

They work with the role that serves, as they do in a deployment. Only what changes the schema or
empties tables works as the owner, and `migrate` then grants the other role what is new. `--data`
names a data directory, before the command or behind it, and files are looked for from where the
caller stands.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from airi_server import boot
from airi_server.launch import environment, locks, postgres, private

_OWNERS: Final = frozenset({"dbshell", "flush", "grant-serving-role", "loaddata", "migrate"})
_DATA: Final = "--data"


def main(arguments: list[str]) -> None:
    data, arguments = _without_data(arguments)
    directory = private.directory(environment.data_directory(data))
    command = arguments[0] if arguments else "help"
    with locks.starting(directory):
        environment.follow(directory)
    with environment.storage(directory) as storage:
        if command not in _OWNERS:
            os.environ["DATABASE_URL"] = storage.serving_url
        with locks.starting(directory):
            environment.apply(directory)
        os.chdir(environment.called_from())
        boot.run_command(["manage.py", *arguments])
        if command == "migrate" and storage.has_roles and not _only_shows(arguments):
            boot.run_command(["manage.py", "grant-serving-role", postgres.SERVING])


def _without_data(arguments: list[str]) -> tuple[Path | None, list[str]]:
    """Return the data directory, if one is named before a `--`, and the other arguments."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    data, rest, given = None, [], iter(arguments[:end])
    for each in given:
        name, is_joined, value = each.partition("=")
        if name != _DATA:
            rest.append(each)
            continue
        data = value if is_joined else next(given, "")
        if not data:
            sys.exit("./run manage: --data needs a directory, as in --data DIR.")
    return None if data is None else Path(data), rest + arguments[end:]


def _only_shows(arguments: list[str]) -> bool:
    return not {"--plan", "--check", "--help", "-h"}.isdisjoint(arguments)
