"""Balances as the clients read them: the committed truth, one round trip for all who wait."""

from __future__ import annotations

from collections.abc import Sequence

from airi_server.kernel import database, resources
from airi_server.kernel.group_commit import GroupCommit
from billing import options
from billing.ledger import OPEN_ACCOUNT_SQL, AccountClosed

READ_BALANCES_SQL = resources.read_text("billing", "sql/read_balances.sql")


async def _read(lent: database.Connection, users: Sequence[str]) -> list[int | None]:
    rows = await database.execute(lent, READ_BALANCES_SQL, {"users": list(set(users))})
    found = {str(user_id): int(flux) for user_id, flux in rows}
    return [found.get(user_id) for user_id in users]


_reads: GroupCommit[str, int | None] = GroupCommit(_read)


async def of(user_id: str) -> int:
    """Return the user's balance; the first read opens the account with its opening grant.

    Raises:
        AccountClosed: The account was deleted.
    """
    balance = await _balance(user_id)
    if balance is None:
        await open_account(user_id)
        balance = await _balance(user_id)
    if balance is None:
        raise AccountClosed("The account was deleted.")
    return balance


async def _balance(user_id: str) -> int | None:
    return await database.retried(lambda: _reads.submit(user_id))


async def open_account(user_id: str) -> None:
    """Create the account if it does not exist, in one round trip."""
    await database.fetch(
        OPEN_ACCOUNT_SQL, {"user_id": user_id, "flux": options.INITIAL_USER_FLUX.current()}
    )
