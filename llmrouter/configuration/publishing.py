"""Publishing: the one way to change the configuration in force, and the copy the hot path reads.

Admin, import, seeding and key rotation all come through `publish`: under one lock it writes the
rows, appends a revision and tells every instance, or changes nothing.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Final

from django.db import connection, transaction

from airi_server.kernel import database, sealing
from airi_server.kernel.errors import Conflict, NotFound
from airi_server.runtime import audit, published
from airi_server.runtime.options import ConfigNotSet
from llmrouter import telemetry
from llmrouter.configuration import (
    changes,
    key_origins,
    provider_keys,
    routes,
    rows,
    spelling,
    tree,
)
from llmrouter.configuration.models import NOTE_LENGTH, RouterRevision

logger = logging.getLogger(__name__)

LOCK: Final = 0x61697269_0001  # "airi", 1: any number nobody else locks
NEWEST_SQL: Final = "SELECT number, tree::text FROM router_revision ORDER BY number DESC LIMIT 1"


class NotConfigured(ConfigNotSet):
    """Nothing has been published yet. Run `manage.py seed-router-config`."""


class RevisionConflict(Conflict):
    """Somebody published since the caller looked. Nothing was written."""


class UnknownRevision(NotFound):
    """There is no revision of that number."""


class UnreadableRevision(Exception):
    """This process cannot read the newest revision and has no older copy to go on with."""


async def load() -> routes.Table | None:
    """Compile the newest revision, or return None if nothing has been published.

    A revision that newer code published and we cannot read leaves us the one we have.

    Raises:
        UnreadableRevision: And we have none.
    """
    found = await database.fetch(NEWEST_SQL, {})
    if not found:
        return None
    number, text = found[0]
    telemetry.config_reloaded("version")
    try:
        return routes.compile(tree.parse_json(text), number)
    except tree.InvalidTree:
        logger.error("The newest router revision is unreadable", extra={"revision": number})  # noqa: TRY400  the traceback would quote the tree
        return _kept(number)


ROUTER: Final[published.Published[routes.Table | None]] = published.Published("router", load)


def _kept(number: int) -> routes.Table | None:
    try:
        return ROUTER.current()
    except KeyError:
        raise UnreadableRevision(f"Router revision {number} cannot be read.") from None


def active() -> routes.Table:
    """Return the routes in force, on the hot path, after `published.refresh`.

    Raises:
        NotConfigured: Nothing has been published yet.
    """
    table = ROUTER.current()
    if table is None:
        raise NotConfigured("LLM_ROUTER_CONFIG not set")
    return table


def newest() -> RouterRevision | None:
    """Return the revision in force, from the database."""
    return RouterRevision.objects.order_by("-number").first()


def current_number() -> int:
    """Return the number of the revision in force; 0 if nothing has been published."""
    revision = newest()
    return revision.number if revision else 0


def current_tree() -> tree.Tree:
    """Return the configuration in force, empty if nothing has been published."""
    revision = newest()
    return tree.parse(revision.tree) if revision else tree.Tree()


def current_table() -> routes.Table:
    """Return the routes in force, from the database, in synchronous code.

    Raises:
        NotConfigured: Nothing has been published yet.
    """
    revision = newest()
    if revision is None:
        raise NotConfigured("LLM_ROUTER_CONFIG not set")
    return routes.compile(tree.parse(revision.tree), revision.number)


def lock() -> None:
    """Keep other publishers waiting until the caller's transaction ends; taken before reading."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])


def publish(
    config: tree.Tree,
    *,
    note: str,
    by: str,
    at: datetime,
    expected: int | None = None,
    stood: tree.Tree | None = None,
) -> RouterRevision | None:
    """Put a configuration in force; the next request on every instance uses it.

    Publishing what is already in force changes nothing and returns None.

    Args:
        config: What is to be in force.
        note: Why.
        by: Who decided.
        at: When.
        expected: The revision the change was made from, 0 for none; not compared if None.
        stood: A configuration that was in force: its names and addresses may be written again.

    Raises:
        RevisionConflict: `expected` is no longer in force. Nothing was written.
        InvalidTree: As `check`. Nothing was written.
    """
    with transaction.atomic():
        lock()
        before = newest()
        number = before.number if before else 0
        if expected not in (None, number):
            raise RevisionConflict(
                f"Revision {number} was published in between.", details={"current": number}
            )
        previous = tree.parse(before.tree) if before else tree.Tree()
        rows.write(config, _checked(config, previous, stood or previous))
        if config == previous:
            return None
        revision = RouterRevision.objects.create(
            number=number + 1,
            tree=tree.dump(config),
            diff=changes.diff(tree.dump(previous), tree.dump(config)),
            note=note[:NOTE_LENGTH],
            published_by=by,
            published_at=at,
        )
        audit.record(
            action="llmrouter.publish_router_config",
            subject=audit.Subject.of(revision),
            by=by,
            at=at,
            sentence=f"Published {revision}. {note}".strip(),
        )
        published.announce(ROUTER.name)
    return revision


def publish_rows(
    *, note: str, by: str, at: datetime, expected: int | None = None
) -> RouterRevision | None:
    """Put in force what the rows say, after the caller changed them under `lock`.

    Raises:
        RevisionConflict, InvalidTree: As `publish`; the caller's transaction has to roll back.
    """
    rows.renumber()
    return publish(rows.read(), note=note, by=by, at=at, expected=expected)


def republish(
    number: int, *, note: str, by: str, at: datetime, expected: int | None = None
) -> RouterRevision | None:
    """Put an older revision in force again, as a new one.

    Raises:
        UnknownRevision: There is none of that number.
        RevisionConflict, InvalidTree: As `publish`; keys sealed under a master key that has been
            retired since no longer open.
    """
    revision = RouterRevision.objects.filter(number=number).first()
    if revision is None:
        raise UnknownRevision(f"There is no revision {number}.")
    older = tree.parse(revision.tree)
    return publish(older, note=note, by=by, at=at, expected=expected, stood=older)


def check(config: tree.Tree) -> None:
    """Refuse what `publish` would refuse, and write nothing.

    Raises:
        InvalidTree: A key that is new here does not open, or cannot be sent; a key would go to
            another origin than it was entered for; or a name or an address is new here and may
            not be written.
    """
    _checked(config, current_tree())


def _checked(config: tree.Tree, previous: tree.Tree, *known: tree.Tree) -> dict[str, str]:
    """Return the fingerprints of the keys that are new here, by sealed text."""
    _refuse(spelling.faults(config, previous, *known))
    _refuse(key_origins.faults(config, previous))
    return _fingerprints_of_new_keys(config, previous)


def _fingerprints_of_new_keys(config: tree.Tree, previous: tree.Tree) -> dict[str, str]:
    """Open every key that is new in its place, and return the fingerprints by sealed text.

    Keys that stay are not opened: one that is lost must not stop other changes.
    """
    known = {(model, key.id, key.ciphertext) for _, model, key, _ in provider_keys.places(previous)}
    fingerprints, faults = {}, []
    for path, model, key, origin in provider_keys.places(config):
        if (model, key.id, key.ciphertext) in known:
            continue
        try:
            fingerprints[key.ciphertext] = provider_keys.fingerprint(
                key.ciphertext, model=model, key_id=key.id, origin=origin
            )
        except (sealing.CannotOpen, provider_keys.UnusableKey) as reason:
            faults.append({"path": f"{path}.ciphertext", "message": str(reason)})
    _refuse(faults)
    return fingerprints


def _refuse(faults: list[dict[str, str]]) -> None:
    if faults:
        sentence = "; ".join(f"{fault['path']}: {fault['message']}" for fault in faults)
        raise tree.InvalidTree(sentence, details=faults)
