"""The judge of a run over paid requests sees books that do not agree with themselves."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from tests.chaos.one_call import VOIDED, row
from tests.chaos.paid import books
from tests.chaos.paid.record import Order, Person, Record
from tests.chaos.paid.witness import Account, Entry, Truth

RIA = Person("ria", "ria@example.com", "key", "public", is_poor=True)
GRANT = "flux-grant:g-1:ria"


def entry(seq: int, kind: str, amount: int, before: int, after: int, key: str | None) -> Entry:
    return Entry(f"e{seq}", "ria", seq, kind, amount, before, after, key)


@pytest.fixture
def truth():
    """Ria began with 3,000, paid 560, was granted 40 and has a request open that holds 900."""
    made = Truth(accounts={"ria": Account("ria", 2_480, 900, 4)})
    made.entries["ria"] = [
        entry(1, "initial", 0, 0, 0, None),
        entry(2, "credit", 3_000, 0, 3_000, "start"),
        entry(3, "debit", 560, 3_000, 2_440, "llm:row"),
        entry(4, "promo", 40, 2_440, 2_480, GRANT),
    ]
    made.rows = {"row": row(), "open": row(id="open", state="open", charged=0)}
    made.audited = Counter({("g-1", "ria"): 1})
    return made


@pytest.fixture
def record():
    told = {"ria": {("e4", 2_480)}}
    return Record(orders=[Order("g-1", 40, ("ria",), told), Order("g-2", 40, ("ria",))])


def change(truth: Truth, place: int, **facts: object) -> None:
    entries = truth.entries["ria"]
    entries[place] = dataclasses.replace(entries[place], **facts)  # type: ignore[arg-type]


def test_books_that_agree_are_in_order(truth, record):
    del truth.rows["open"]
    truth.accounts["ria"] = Account("ria", 2_480, 0, 4)

    assert list(books.of_accounts(truth)) == []
    assert list(books.of_requests(truth)) == []
    assert list(books.of_grants(truth, record)) == []
    assert list(books.of_credits(truth, [RIA])) == []


class TestAccounts:
    def test_with_what_is_held_by_an_open_row_are_in_order(self, truth):
        assert list(books.of_accounts(truth)) == []

    @pytest.mark.parametrize(
        ("account", "said"),
        [
            (Account("ria", 2_481, 900, 4), "balance 2481, last entry 2480, sum of them 2480"),
            (Account("ria", 2_480, 899, 4), "899 is held, not 900"),
            (Account("ria", 2_480, 2_481, 4), "holds 2481 of 2480"),
            (Account("ria", 2_480, 900, 5), "counts 5 entries, there are 4"),
        ],
    )
    def test_that_disagree_are_seen(self, truth, account, said):
        truth.accounts["ria"] = account

        assert f"ria: {said}" in list(books.of_accounts(truth))

    @pytest.mark.parametrize(
        ("place", "facts", "said"),
        [
            (2, {"seq": 4}, "ria entry 4: should have the number 3"),
            (2, {"amount": 559}, "ria entry 3: debit of 559 from 3000 to 2440"),
            (3, {"before": 2_441}, "ria entry 4: begins at 2441, the one before ended at 2440"),
            (2, {"after": -1}, "ria entry 3: a balance of -1"),
        ],
    )
    def test_with_a_wrong_entry_are_seen(self, truth, place, facts, said):
        change(truth, place, **facts)

        assert said in list(books.of_accounts(truth))

    def test_that_are_missing_are_seen(self, truth):
        truth.accounts.clear()

        assert list(books.of_accounts(truth)) == ["ria: has a ledger and no account"]


class TestRequests:
    def test_that_are_open_are_seen(self, truth):
        (fault,) = books.of_requests(truth)

        assert fault.startswith("request open: still open")

    @pytest.mark.parametrize(
        ("place", "facts", "said"),
        [
            (2, {"amount": 559}, "request row: charged 560, its entry says 559"),
            (2, {"request_id": "llm:x"}, "request row: charged 560 by 0 entries"),
            (
                3,
                {"kind": "debit", "request_id": "llm:row"},
                "request row: charged 560 by 2 entries",
            ),
            (3, {"kind": "debit"}, f"a debit {GRANT} has no request"),
        ],
    )
    def test_whose_debit_is_wrong_are_seen(self, truth, place, facts, said):
        change(truth, place, **facts)

        assert said in list(books.of_requests(truth))

    def test_that_delivered_nothing_and_cost_something_are_seen(self, truth):
        truth.rows["row"] = row(**{**VOIDED, "charged": 560})

        assert "request row: voided and costs 560 + 0" in list(books.of_requests(truth))


class TestGrants:
    @pytest.mark.parametrize(
        ("facts", "said"),
        [
            ({"amount": 41}, "grant g-1: ria got 41, not 40"),
            ({"id": "e5"}, "grant g-1: ria was told {('e4', 2480)}, there is {('e5', 2480)}"),
            ({"request_id": "flux-grant:g-3:ria"}, "grant flux-grant:g-3:ria: nobody ordered it"),
            ({"kind": "credit"}, "grant g-1: ria was told {('e4', 2480)}, there is nothing"),
        ],
    )
    def test_that_are_not_what_was_acknowledged_are_seen(self, truth, record, facts, said):
        change(truth, 3, **facts)

        assert any(fault.startswith(said) for fault in books.of_grants(truth, record))

    def test_that_came_twice_are_seen(self, truth, record):
        change(truth, 1, kind="promo", amount=40, request_id=GRANT)

        assert "grant g-1: ria got it 2 times, audited 1 times" in list(
            books.of_grants(truth, record)
        )

    @pytest.mark.parametrize("times", [0, 2])
    def test_that_are_not_audited_once_are_seen(self, truth, record, times):
        truth.audited["g-1", "ria"] = times

        assert list(books.of_grants(truth, record)) == [
            f"grant g-1: ria got it 1 times, audited {times} times"
        ]

    def test_whose_answers_differ_are_seen(self, truth, record):
        record.orders[0].acknowledged["ria"].add(("e5", 2_520))

        assert len(list(books.of_grants(truth, record))) == 1

    def test_out_of_nowhere_are_seen(self, truth):
        change(truth, 1, amount=3_001)

        assert list(books.of_credits(truth, [RIA])) == ["ria: credited [0, 3001], not 3000"]
