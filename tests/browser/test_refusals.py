"""A caller is refused by a real server; an operator finds out why from the id in the answer."""

from __future__ import annotations

import re
import time

import httpx
import pytest

from billing.models import RefusedRequest
from tests.browser.chromium import expect
from tests.browser.test_search import search
from tests.factories import gateway

SEE = (
    "billing.view_refusedrequest", "billing.view_llmrequestlog", "accounts.view_user",
    "accounts.view_apikey", "billing.view_fluxaccount", "llmrouter.view_routermodel",
)  # fmt: skip
BODY = {"model": "chat-default", "messages": [{"role": "user", "content": "Hello?"}]}


def refused(server, provider, **more) -> str:
    """Ask for an answer that there is no Flux for; return the id of the refusal once it is kept."""
    gateway.make_route(provider.base_url)
    caller = gateway.make_caller(flux=0)
    answer = httpx.post(
        f"{server.base_url}/v1/chat/completions",
        json={**BODY, **more},
        headers={"Authorization": f"Bearer {caller.key}"},
    )
    assert answer.status_code in (400, 402, 503), answer.text
    request_id: str = answer.headers["x-request-id"]
    until = time.monotonic() + 5
    while not RefusedRequest.objects.filter(pk=request_id).exists():
        assert time.monotonic() < until, "it was not kept"
        time.sleep(0.02)
    return request_id


def test_the_id_of_an_answer_leads_to_why_it_was_refused(console, server, provider):
    request_id = refused(server, provider)
    page = console(*SEE)

    search(page, request_id)

    expect(page).to_have_url(re.compile(f"refusedrequest/{request_id}/change/"))
    row = RefusedRequest.objects.get(pk=request_id)
    expect(page.get_by_text(row.code).first).to_be_visible()
    page.get_by_role("link", name="Requests of this user").click()
    expect(page.locator("#result_list tbody tr")).to_have_count(1)


def test_the_page_of_the_request_says_that_it_was_refused(console, server, provider):
    request_id = refused(server, provider)

    page = console(*SEE, path=f"/admin/billing/llmrequestlog/{request_id}/change/")

    expect(
        page.get_by_text(f"Request {request_id} was refused before it was opened.")
    ).to_be_visible()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_long_name_of_a_model_is_broken_and_not_the_page(console, server, provider, width):
    request_id = refused(server, provider, model="a" * 64)
    page = console(*SEE, path="/admin/billing/refusedrequest/")
    page.set_viewport_size({"width": width, "height": 800})

    for address in ("", f"{request_id}/change/"):
        page.goto(f"/admin/billing/refusedrequest/{address}")
        name = page.locator("code").filter(has_text="a" * 64).first
        expect(name).to_be_visible()
        box = name.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= width
    page.set_viewport_size({"width": 1280, "height": 800})
