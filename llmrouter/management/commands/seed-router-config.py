"""`manage.py seed-router-config`: route the models whose provider keys the environment holds."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final

import orjson
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from airi_server import env
from airi_server.kernel.errors import DomainError
from llmrouter.configuration import tree
from llmrouter.configuration.seeding import requests, seed

REDACTED: Final = b'"<ciphertext: '
"""What `tree.redacted` leaves of a sealed key."""
DEFAULT: Final = " (default: %(default)s)"
CHOICES: Final = (
    ("openrouter-model", "openai/gpt-4o-mini", "what OpenRouter calls the model"),
    ("default-chat-model", "chat-default", "what clients call it, and what auto means then"),
    ("azure-region", "eastasia", "where the key in AZURE_KEY is from"),
    ("azure-tts-model", "microsoft/v1", "what clients call Azure's speech model"),
    ("dashscope-tts-model", "alibaba/cosyvoice-v2", "what clients call DashScope's speech model"),
    ("dashscope-upstream-model", "cosyvoice-v2", "what DashScope calls it"),
)


class Command(BaseCommand):
    help = (
        "Route the models whose keys are in OPENROUTER_KEY, AZURE_KEY and DASHSCOPE_KEY, or "
        "publish a JSON file. Safe to run on every deploy: what is so already is not published."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        mode = parser.add_mutually_exclusive_group()
        mode.add_argument(
            "--merge",
            action="store_const",
            dest="mode",
            const="merge",
            help="keep the other models (the default)",
        )
        mode.add_argument(
            "--reset", action="store_const", dest="mode", const="reset", help="remove the others"
        )
        parser.set_defaults(mode="merge")
        parser.add_argument("--dry-run", action="store_true", help="write nothing, show the diff")
        parser.add_argument(
            "--file",
            type=Path,
            help="publish this tree, as export-router-config --with-ciphertexts writes it",
        )
        parser.add_argument("--note", default="seeded", help=f"kept with the revision{DEFAULT}")
        for name, default, what in CHOICES:
            parser.add_argument(f"--{name}", default=default, help=what + DEFAULT)
        parser.add_argument(
            "--dashscope-region",
            default="intl",
            choices=("intl", "cn"),
            help=f"where the key in DASHSCOPE_KEY is from{DEFAULT}",
        )
        parser.add_argument(
            "--default-tts-model",
            help="what auto means for speech (default: left as it is; with --reset the first)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        file = options["file"]
        try:
            seeded = _imported(options) if file else _seeded(options)
        except DomainError as refusal:
            place = f"{file}: " if file else ""
            raise CommandError(place + refusal.message.removeprefix(": ")) from None
        except OSError as unreadable:
            raise CommandError(f"{file}: {unreadable.strerror}") from None
        for why in seeded.left:
            self.stderr.write(f"left as it is: {why}")
        if seeded.diff:
            self.stdout.write(seeded.diff)
        wrote = "published: " + ", ".join(seeded.changed) if seeded.changed else "nothing published"
        self.stderr.write(wrote)


def _imported(options: dict[str, Any]) -> seed.Seeded:
    text = options["file"].read_bytes()
    if REDACTED in text:
        raise CommandError(
            f"{options['file']}: it was exported without its keys. Export it with: "
            "export-router-config --with-ciphertexts"
        )
    return seed.import_tree(
        tree.parse_json(text),
        mode=options["mode"],
        dry_run=options["dry_run"],
        by="manage.py",
        at=timezone.now(),
        note=options["note"],
    )


def _seeded(options: dict[str, Any]) -> seed.Seeded:
    chosen = [_chat(options), _azure(options), _dashscope(options)]
    present = [each for each in chosen if each["plaintextKey"]]
    if not present:
        raise CommandError("Set OPENROUTER_KEY, AZURE_KEY or DASHSCOPE_KEY, or give --file.")
    request = {
        "mode": options["mode"],
        "dryRun": options["dry_run"],
        "slices": present,
        "defaults": _defaults(present, options),
    }
    return seed.seed(
        requests.parse(orjson.dumps(request)),
        by="manage.py",
        at=timezone.now(),
        note=options["note"],
        is_routine=True,
    )


def _chat(options: dict[str, Any]) -> dict[str, str]:
    return {
        "kind": "openrouter",
        "modelName": options["default_chat_model"],
        "overrideModel": options["openrouter_model"],
        "plaintextKey": env.text("OPENROUTER_KEY", ""),
    }


def _azure(options: dict[str, Any]) -> dict[str, str]:
    return {
        "kind": "azure",
        "modelName": options["azure_tts_model"],
        "region": options["azure_region"],
        "plaintextKey": env.text("AZURE_KEY", ""),
    }


def _dashscope(options: dict[str, Any]) -> dict[str, str]:
    return {
        "kind": "dashscope-cosyvoice",
        "modelName": options["dashscope_tts_model"],
        "region": options["dashscope_region"],
        "upstreamModel": options["dashscope_upstream_model"],
        "plaintextKey": env.text("DASHSCOPE_KEY", ""),
    }


def _defaults(present: list[dict[str, str]], options: dict[str, Any]) -> dict[str, str]:
    """Say what `auto` means: the chat model if one was written, speech on request or reset."""
    chat = [each["modelName"] for each in present if each["kind"] == "openrouter"]
    speech = [each["modelName"] for each in present if each["kind"] != "openrouter"]
    defaults = {"chatModel": chat[0]} if chat else {}
    if options["default_tts_model"]:
        defaults["ttsModel"] = options["default_tts_model"]
    elif speech and options["mode"] == "reset":
        defaults["ttsModel"] = speech[0]
    return defaults
