"""Re-check the keys of open sockets against the database, without the secret they came with."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from accounts import addresses, credentials
from accounts.credentials import CredentialStanding, StoredKey
from airi_server.kernel import database, resources

_READ_STANDINGS_SQL: Final = resources.read_text("accounts", "sql/read_standings.sql")


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who authenticated with a key, and from where.

    Attributes:
        address: Where the key was presented; its allow-list is held against it.
    """

    user_id: str
    api_key_id: str
    address: str


async def fallen(callers: Collection[Caller], *, at: datetime) -> set[Caller]:
    """Return those who would be refused now, in one round trip for all of them.

    Raises:
        psycopg.OperationalError, PoolTimeout: The database is away; nobody has fallen by that.
    """
    params = {"public_ids": sorted({caller.api_key_id for caller in callers})}
    stored = {row[0]: StoredKey(*row) for row in await database.fetch(_READ_STANDINGS_SQL, params)}
    standings = {
        public_id: credentials.standing_of(key, secret_hash=key.secret_hash, at=at)
        for public_id, key in stored.items()
    }
    return {c for c in callers if not _stands(c, standings.get(c.api_key_id))}


def _stands(caller: Caller, standing: CredentialStanding | None) -> bool:
    if standing is None or standing.principal is None:
        return False
    if standing.principal.user_id != caller.user_id:
        return False
    return standing.networks is None or addresses.is_listed(caller.address, standing.networks)
