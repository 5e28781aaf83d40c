"""The books must agree with themselves: sentences that say where they do not. Pure.

Written from `docs/ledger.md`, without the statements of the product, which check them as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from tests.chaos.paid.record import Order, Person, Record
from tests.chaos.paid.witness import Account, Entry, Row, Truth

_SIGNS: Final = {"initial": 1, "credit": 1, "promo": 1, "debit": -1}
GRANT: Final = "flux-grant:"


def of_accounts(truth: Truth) -> Iterator[str]:
    """Balance, sum of the ledger and last entry are one number; holds are those of open rows."""
    holds: Counter[str] = Counter()
    for row in truth.rows.values():
        if row.is_open:
            holds[row.user_id] += row.hold
    for account in truth.accounts.values():
        yield from _of_ledger(account, truth.entries[account.user_id])
        if account.held != holds[account.user_id]:
            yield f"{account.user_id}: {account.held} is held, not {holds[account.user_id]}"
        if not 0 <= account.held <= account.flux:
            yield f"{account.user_id}: holds {account.held} of {account.flux}"
    for user_id in truth.entries.keys() - truth.accounts.keys():
        if truth.entries[user_id]:
            yield f"{user_id}: has a ledger and no account"


def _of_ledger(account: Account, entries: Sequence[Entry]) -> Iterator[str]:
    before = 0
    for place, entry in enumerate(entries, 1):
        where = f"{entry.user_id} entry {entry.seq}"
        if entry.seq != place:
            yield f"{where}: should have the number {place}"
        if entry.before != before:
            yield f"{where}: begins at {entry.before}, the one before ended at {before}"
        if entry.after != entry.before + _SIGNS[entry.kind] * entry.amount:
            yield f"{where}: {entry.kind} of {entry.amount} from {entry.before} to {entry.after}"
        if entry.after < 0:
            yield f"{where}: a balance of {entry.after}"
        before = entry.after
    total = sum(_SIGNS[entry.kind] * entry.amount for entry in entries)
    if not account.flux == before == total:
        yield (
            f"{account.user_id}: balance {account.flux}, last entry {before}, sum of them {total}"
        )
    if account.seq != len(entries):
        yield f"{account.user_id}: counts {account.seq} entries, there are {len(entries)}"


def of_requests(truth: Truth) -> Iterator[str]:
    """Everything has ended; what cost something has one debit, the rest has none."""
    debits: Counter[str] = Counter()
    amounts: dict[str, int] = {}
    for entries in truth.entries.values():
        for entry in entries:
            if entry.kind == "debit":
                debits[str(entry.request_id)] += 1
                amounts[str(entry.request_id)] = entry.amount
    for row in truth.rows.values():
        yield from _of_row(row, debits.pop(f"llm:{row.id}", 0), amounts)
    for request_id in debits:
        yield f"a debit {request_id} has no request"


def _of_row(row: Row, debits: int, amounts: dict[str, int]) -> Iterator[str]:
    where = f"request {row.id}"
    if row.is_open or row.settled_at is None:
        yield f"{where}: still {row.state}, opened {row.opened_at}"
    if row.state != "settled" and row.charged + row.unbilled:
        yield f"{where}: {row.state} and costs {row.charged} + {row.unbilled}"
    if debits != bool(row.charged):
        yield f"{where}: charged {row.charged} by {debits} entries"
    elif debits and amounts[f"llm:{row.id}"] != row.charged:
        yield f"{where}: charged {row.charged}, its entry says {amounts[f'llm:{row.id}']}"


def of_grants(truth: Truth, record: Record) -> Iterator[str]:
    """What was acknowledged is there once; what was not is there at most once; no more is."""
    orders = {order.key: order for order in record.orders}
    found: dict[tuple[str, str], list[Entry]] = {}
    for entry in (each for entries in truth.entries.values() for each in entries):
        if entry.kind == "promo":
            yield from _of_grant(entry, orders)
            key, _, _ = str(entry.request_id).removeprefix(GRANT).rpartition(":")
            found.setdefault((key, entry.user_id), []).append(entry)
    for key, user_id in found.keys() | truth.audited.keys():
        times, audited = len(found.get((key, user_id), ())), truth.audited[key, user_id]
        if (times, audited) != (1, 1):
            yield f"grant {key}: {user_id} got it {times} times, audited {audited} times"
    for order in record.orders:
        for user_id, told in order.acknowledged.items():
            there = {(entry.id, entry.after) for entry in found.get((order.key, user_id), ())}
            if told != there:
                yield f"grant {order.key}: {user_id} was told {told}, there is {there or 'nothing'}"


def _of_grant(entry: Entry, orders: dict[str, Order]) -> Iterator[str]:
    key, _, user_id = str(entry.request_id).removeprefix(GRANT).rpartition(":")
    order = orders.get(key)
    if order is None or user_id != entry.user_id or user_id not in order.user_ids:
        yield f"grant {entry.request_id}: nobody ordered it for {entry.user_id}"
    elif entry.amount != order.amount:
        yield f"grant {key}: {user_id} got {entry.amount}, not {order.amount}"


def of_credits(truth: Truth, people: Sequence[Person]) -> Iterator[str]:
    """Nobody got anything but a start and grants."""
    for person in people:
        given = [e.amount for e in truth.entries[person.user_id] if e.kind in ("credit", "initial")]
        if sum(given) != person.start:
            yield f"{person.user_id}: credited {given}, not {person.start}"
