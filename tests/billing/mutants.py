"""The statements of the hot path with one critical line broken: the tests must notice each."""

from __future__ import annotations

from dataclasses import dataclass

from airi_server.kernel import resources


@dataclass(frozen=True)
class Mutant:
    """One statement, and what is changed in it."""

    statement: str
    was: str
    becomes: str

    @property
    def sql(self) -> str:
        """Return the statement as the migration would install it.

        Raises:
            AssertionError: The line is not there (any more), or not once.
        """
        text = resources.read_text("billing", f"sql/{self.statement}.sql")
        assert text.count(self.was) == 1, f"{self.was!r} occurs {text.count(self.was)} times"
        return text.replace(self.was, self.becomes)


HEALTHY = ("open_requests", "mark_requests", "settle_requests")

SEQUENTIAL = {
    "held ignored in admission": Mutant(
        "open_requests", "greatest(0, m.flux - m.held)", "greatest(0, m.flux)"
    ),
    "holds of one batch ignored": Mutant("open_requests", "v_free := v_free - hold;", ""),
    "hold not added": Mutant("open_requests", "v_added := v_added + hold;", ""),
    "only the last hold added": Mutant(
        "open_requests", "v_added := v_added + hold;", "v_added := hold;"
    ),
    "hold not limited to what is free": Mutant(
        "open_requests", "hold := least(m.wanted, v_room);", "hold := m.wanted;"
    ),
    "floor not asked for": Mutant(
        "open_requests", "IF v_free < m.floor OR v_room < m.floor", "IF false"
    ),
    "one id opened twice": Mutant(
        "open_requests", "coalesce(m.open_hold, o_holds[array_position(o_ids, m.id)])", "NULL"
    ),
    "one id opened twice in one batch": Mutant(
        "open_requests",
        "coalesce(m.open_hold, o_holds[array_position(o_ids, m.id)])",
        "m.open_hold",
    ),
    "client key not looked up": Mutant("open_requests", "IF m.client_key IS NOT NULL", "IF false"),
    "client keys of one batch not compared": Mutant(
        "open_requests", "coalesce(m.taken_by, o_ids[array_position(o_keys, m.key)])", "m.taken_by"
    ),
    "voided rows keep their client key": Mutant("open_requests", "AND k.state <> 'voided'", ""),
    "frozen accounts admitted": Mutant("open_requests", "IF m.frozen", "IF false"),
    "deleted accounts admitted": Mutant("open_requests", "IF m.deleted_at IS NOT NULL", "IF false"),
    "spending without holds": Mutant("open_requests", "coalesce(sum(l.hold), 0)", "0"),
    "spending of the day ignored": Mutant(
        "open_requests", "coalesce(sum(s.flux) FILTER (WHERE s.day = v_today), 0)", "0"
    ),
    "spending of the month ignored": Mutant(
        "open_requests",
        "sum(s.flux) FILTER (WHERE s.day >= date_trunc('month', v_today)::date), 0)",
        "sum(0), 0)",
    ),
    "spending of the batch ignored": Mutant(
        "open_requests", "WHERE o.api_key_id = m.api_key_id;", "WHERE false;"
    ),
    "spending in total ignored": Mutant("open_requests", "coalesce(sum(s.flux), 0)", "0"),
    "closed rows marked": Mutant("mark_requests", "AND l.state IN ('open', 'streaming')", ""),
    "checkpoints that go backwards": Mutant(
        "mark_requests", "greatest(l.checkpoint, r.checkpoint)", "r.checkpoint"
    ),
    "first byte moved": Mutant(
        "mark_requests", "coalesce(l.first_byte_at, clock_timestamp())", "clock_timestamp()"
    ),
    "settled without compare-and-set": Mutant(
        "settle_requests",
        "IF m.was NOT IN ('open', 'streaming') THEN",
        "IF false THEN",
    ),
    "settled twice in one batch": Mutant(
        "settle_requests", "ELSIF m.first_position < m.position THEN", "ELSIF false THEN"
    ),
    "charged more than there is": Mutant(
        "settle_requests",
        "least(m.charge, m.hold + greatest(0, v_flux - v_held - m.hold), v_flux)",
        "m.charge",
    ),
    "charged from the holds of others": Mutant(
        "settle_requests", "m.hold + greatest(0, v_flux - v_held - m.hold), v_flux)", "v_flux)"
    ),
    "hold not released": Mutant("settle_requests", "v_held := v_held - m.hold;", ""),
    "user_seq not incremented": Mutant("settle_requests", "v_seq := v_seq + 1;", ""),
    "balance not carried on": Mutant("settle_requests", "v_flux := v_flux - charged;", ""),
    "unbilled not recorded": Mutant(
        "settle_requests", "unbilled = e.charge - e.charged,", "unbilled = 0,"
    ),
    "balance not written": Mutant(
        "settle_requests", "SET flux = a.flux, held = a.held,", "SET flux = f.flux, held = a.held,"
    ),
    "balance of the first user not written": Mutant(
        "settle_requests",
        """            IF v_user IS NOT NULL THEN
                a_user""",
        """            IF false THEN
                a_user""",
    ),
    "spending not counted": Mutant("settle_requests", "AND e.api_key_id IS NOT NULL", "AND false"),
    "spending overwritten": Mutant(
        "settle_requests", "flux = s.flux + excluded.flux", "flux = excluded.flux"
    ),
    "forgotten rows not written": Mutant(
        "settle_requests", "IF v_known < cardinality(p_ids) THEN", "IF false THEN"
    ),
    "forgotten rows with a hold": Mutant(
        "settle_requests", "'open', 0, m.model, 0,", "'open', 1, m.model, 0,"
    ),
    "another key in the ledger": Mutant("settle_requests", "'llm:' || e.id::text", "e.id::text"),
}
"""Wrong even when nothing else happens at the same time."""

RACING = {
    "admission without the account's lock": Mutant(
        "open_requests", "ORDER BY f.user_id FOR NO KEY UPDATE;", "ORDER BY f.user_id;"
    ),
    "settlement without the account's lock": Mutant(
        "settle_requests", "ORDER BY f.user_id FOR NO KEY UPDATE;", "ORDER BY f.user_id;"
    ),
    "settlement without the request's lock": Mutant(
        "settle_requests", "ORDER BY l.id FOR NO KEY UPDATE;", "ORDER BY l.id;"
    ),
}
"""Wrong only when two do it at once."""
