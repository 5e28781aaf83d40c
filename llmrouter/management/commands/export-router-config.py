"""`manage.py export-router-config`: the configuration in force as JSON."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandError

from llmrouter.configuration import publishing, tree


class Command(BaseCommand):
    help = (
        "Print the router configuration in force as JSON, without its ciphertexts. With them it "
        "can be given to seed-router-config --file on a server that has the same master key."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--with-ciphertexts", action="store_true", help="include the sealed keys"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        revision = publishing.newest()
        if revision is None:
            raise CommandError("Nothing has been published yet.")
        config = tree.dump(tree.parse(revision.tree))
        shown = config if options["with_ciphertexts"] else tree.redacted(config)
        text = orjson.dumps(shown, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        self.stdout.write(text.decode())
        self.stderr.write(f"revision {revision.number}")
