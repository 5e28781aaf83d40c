"""`./run manage …`: Django's own commands on the running stack, or on one started for them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from airi_server.launch import environment, private

_DATA: Final = Path(".data")


def main(arguments: list[str]) -> None:
    directory = private.directory(_DATA)
    with environment.storage(directory):
        environment.apply(directory)
        from django.core.management import execute_from_command_line

        execute_from_command_line(["manage.py", *arguments])
