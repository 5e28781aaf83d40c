"""A provider refuses a model's only key: an operator's first page says so, and leads to why."""

from __future__ import annotations

from urllib.error import HTTPError
from urllib.request import Request, urlopen

import orjson
import pytest

from billing.models import LLMRequestLog
from tests.browser.chromium import Page, expect
from tests.factories import gateway
from tests.fakes.upstream import ScriptedUpstream, answer, completion, refuse

SEE = (
    "billing.view_llmrequestlog",
    "billing.view_refusedrequest",
    "billing.view_fluxaccount",
    "llmrouter.view_routermodel",
)
MODEL = "chat-outage"
SAID = "Incorrect API key provided"
SECRET = "sk-or-v1-0123456789abcdef"


def ask(base_url: str, key: str, text: str) -> int:
    """Return the status of a completion."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = Request(f"{base_url}/v1/chat/completions", data=orjson.dumps(body), headers=headers)
    try:
        with urlopen(request, timeout=5) as response:
            return int(response.status)
    except HTTPError as refusal:
        return refusal.code


@pytest.fixture
def outage(fresh, server, provider: ScriptedUpstream) -> list[int]:
    """One call went well, then the only key of the model died; return what callers were told."""
    gateway.make_route(provider.base_url, name=MODEL)
    callers = [gateway.make_caller() for _ in range(2)]
    provider.script(
        answer(completion("hello")),
        refuse(401, message=f"{SAID}: {SECRET}. See https://a.example/k"),
    )
    return [
        ask(server.base_url, caller.key, f"question {number}")
        for number, caller in enumerate([callers[0], *callers, *callers, *callers])
    ]


def test_the_first_page_says_which_model_since_when_and_why(console, shot, outage):
    failed = LLMRequestLog.objects.filter(outcome="failed").count()
    assert (outage[0], failed) == (200, 2)
    assert set(outage[1:]) <= {502, 503}

    page: Page = console(*SEE)

    first = page.locator("[aria-labelledby=verdict] > ul > li").first
    expect(first).to_contain_text(f"{MODEL} cannot be served since")
    expect(first).to_contain_text("key k1: 401: key dead for")
    expect(first).to_contain_text(f"The provider says: {SAID}: …")
    expect(first).to_contain_text("2 of its requests failed and 4 were refused at once")
    assert SECRET not in page.content()
    shot("start-outage")

    first.get_by_role("link", name="Show the refused requests").click()
    expect(page.locator("#result_list tbody tr")).to_have_count(4)
    page.go_back()

    first.get_by_role("link", name="Show the failed requests").click()

    rows = page.locator("#result_list tbody tr")
    expect(rows).to_have_count(2)
    for number in range(2):
        expect(rows.nth(number)).to_contain_text("voided · failed · BAD_GATEWAY")
    rows.first.get_by_role("link").first.click()

    attempt = page.locator("#attempts tbody tr")
    expect(attempt).to_have_count(1)
    expect(attempt).to_contain_text("answered 401")
    expect(attempt.locator("q")).to_have_text(f"{SAID}: … See …")
    expect(page.locator(".console-health")).to_contain_text(f"{MODEL} cannot be served since")
    shot("request-outage")


def test_it_is_told_on_a_phone_and_over_when_it_is_over(
    console, context, outage, server, provider, shot
):
    provider.script(answer(completion("hello again")))
    page: Page = console(*SEE)
    page.set_viewport_size({"width": 390, "height": 844})
    expect(page.locator("[aria-labelledby=verdict]")).to_contain_text("cannot be served")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shot("start-outage-narrow")
    page.set_viewport_size({"width": 1280, "height": 800})

    assert ask(server.base_url, gateway.make_caller().key, "and now?") == 200

    page.reload()
    expect(page.locator("#verdict")).to_be_visible()
    expect(page.locator("body")).not_to_contain_text("cannot be served")
