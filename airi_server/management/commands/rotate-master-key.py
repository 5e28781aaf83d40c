"""`manage.py rotate-master-key`: seal whatever is sealed under the current master key."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from airi_server.kernel import sealing
from chats.characters import resealing
from llmrouter.configuration import rotation


class Command(BaseCommand):
    help = (
        "Seal every provider key, and every configuration of a character's capability, again under "
        "LLM_ROUTER_MASTER_KEY, and publish the router's configuration anew. A provider key that "
        "an older version sealed is bound to the origin it stands at. Run it while "
        "LLM_ROUTER_MASTER_KEY_PREVIOUS still holds the old master key; remove that one when "
        "only the current id is left in the counts this prints. Safe to run again after an "
        "interruption. Older revisions keep the ciphertexts they were published with: once the "
        "old master key is gone they cannot be published again, and for as long as somebody "
        "holds it they can still be opened, so after a leak of the master key the providers' "
        "keys themselves have to be replaced."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="write nothing; print the counts, and exit with 1 if something does not open",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        dry_run = options["dry_run"]
        keys = rotation.rotate(by="manage.py", at=timezone.now(), dry_run=dry_run)
        capabilities = resealing.reseal(dry_run=dry_run)
        current = sealing.master_keys().current.id
        for master_id, count in sorted((keys.counts + capabilities.counts).items()):
            mark = "current" if master_id == current else "old"
            self.stdout.write(f"{master_id}\t{count}\t{mark}")
        did = "would be sealed again" if dry_run else "sealed again"
        self.stderr.write(f"{did}: {keys.sealed_again + capabilities.sealed_again}")
        if keys.unbound:
            self.stderr.write(f"provider keys that name no origin: {keys.unbound}")
        if unopened := [*keys.unopened, *capabilities.unopened]:
            raise CommandError(
                "These do not open with LLM_ROUTER_MASTER_KEY, nor with "
                "LLM_ROUTER_MASTER_KEY_PREVIOUS: " + ", ".join(unopened)
            )
