from __future__ import annotations

import pytest

from billing import ledger
from tests.factories import billing as make


@pytest.fixture
def books():
    """Ria was credited; Mio too, settled one request with key k, and has one open."""
    price = make.price()
    make.make_account(50, "ria")
    make.make_account(100, "mio")
    ledger.credit(user_id="mio", amount=9, request_id="c", description="", at=make.NOW)
    settled, waiting = (make.ticket("mio", price, api_key_id="k") for _ in range(2))
    make.open_batch(make.opening(settled, 30), make.opening(waiting, 20))
    make.settle_one(make.settlement(settled, 7))
    assert make.broken_here() == []
    return {"settled": settled.id, "key": f"llm:{settled.id}"}
