"""The router in a browser: a mistake, a look at the changes, a test, and the next request."""

from __future__ import annotations

from urllib.request import Request, urlopen

import orjson
import pytest

from airi_server.runtime.audit import AuditEntry
from billing.models import LLMRequestLog
from llmrouter.configuration.models import RouterModel, RouterRevision
from tests.browser.chromium import Page, Watch, expect
from tests.factories import gateway
from tests.fakes.upstream import ScriptedUpstream, answer, completion, refuse

PUBLISH = "llmrouter.publish_router_config"
PROBE = "llmrouter.probe_upstream"
ADD = "/admin/llmrouter/routermodel/add/"
SECRET = "sk-provider-of-the-browser-tests"


@pytest.fixture
def model(provider: ScriptedUpstream) -> RouterModel:
    """The model `chat-default`, which the first provider answers for."""
    provider.script(answer(completion("from the first provider")))
    gateway.make_route(provider.base_url)
    return RouterModel.objects.get(name="chat-default")


@pytest.fixture
def ask(server):
    """Return what sends a chat completion as a user with Flux, and returns its text."""
    caller = gateway.make_caller()

    def send(model: str = "chat-default") -> str:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
        request = Request(
            f"{server.base_url}/v1/chat/completions",
            data=orjson.dumps(body),
            headers={"Authorization": f"Bearer {caller.key}", "Content-Type": "application/json"},
        )
        with urlopen(request, timeout=5) as response:
            text: str = orjson.loads(response.read())["choices"][0]["message"]["content"]
            return text

    return send


def fill(page: Page, **values: str) -> None:
    for name, value in values.items():
        page.locator(f"[name={name}]").fill(value)


def page_of(model: RouterModel) -> str:
    return f"/admin/llmrouter/routermodel/{model.pk}/change/"


def move(page: Page, base_url: str, **more: str) -> None:
    """Send the upstream's requests elsewhere: its key has to be entered again for that."""
    key = {"upstreams-0-key_id": "k1", "upstreams-0-key_value": SECRET}
    fill(page, **{"upstreams-0-base_url": base_url, **key, **more})


def preview(page: Page) -> None:
    page.locator("#preview-changes").click()
    expect(page.locator("dialog#preview")).to_be_visible()


def test_a_mistake_is_shown_beside_its_field(console, shot):
    page = console(PUBLISH, path=ADD)
    fill(page, name="chat-mistaken", note="a new provider")
    fill(page, **{"upstreams-0-base_url": "openrouter.ai/api/v1", "upstreams-0-key_id": "k1"})
    fill(page, **{"upstreams-0-key_value": SECRET})

    page.locator("#preview-changes").click()

    field = page.locator(".field-base_url").filter(visible=True)
    expect(field.get_by_role("listitem")).to_contain_text("http")
    assert page.locator("[name=upstreams-0-key_value]").input_value() == ""
    assert SECRET not in page.content()
    assert not RouterModel.objects.filter(name="chat-mistaken").exists()
    page.locator("[name=upstreams-0-base_url]").scroll_into_view_if_needed()
    shot("router-mistake")


def test_a_new_model_is_looked_at_and_published(console, shot, provider, ask):
    provider.script(answer(completion("from a new model")))
    page = console(PUBLISH, path=ADD)
    fill(page, name="chat-new", note="our first provider")
    fill(page, **{"upstreams-0-base_url": provider.base_url, "upstreams-0-key_id": "k1"})
    fill(page, **{"upstreams-0-key_value": SECRET})

    preview(page)

    expect(page.locator("dialog#preview .added").first).to_be_visible()
    assert not RouterModel.objects.filter(name="chat-new").exists()
    shot("router-preview")
    page.locator("#publish").click()
    expect(page.get_by_text("Published").first).to_be_visible()
    shot("router-models")

    assert ask("chat-new") == "from a new model"
    assert provider.seen[0].headers["authorization"] == f"Bearer {SECRET}"
    assert SECRET not in page.content()


def test_the_next_completion_takes_the_new_route(
    console, shot, model, provider, other_provider, ask
):
    other_provider.script(answer(completion("from the other provider")))
    assert ask() == "from the first provider"
    page = console(PUBLISH, path=page_of(model))
    move(page, other_provider.base_url, note="the first one is slow")
    preview(page)
    expect(page.locator("dialog#preview")).to_contain_text(other_provider.base_url)
    shot("router-diff")
    assert ask() == "from the first provider"

    page.locator("#publish").click()
    expect(page.get_by_text("Published").first).to_be_visible()

    assert ask() == "from the other provider"


def test_an_older_revision_is_published_again(console, shot, model, provider, other_provider, ask):
    older = RouterRevision.objects.order_by("-number")[0]
    other_provider.script(answer(completion("from the other provider")))
    gateway.make_route(other_provider.base_url)
    assert ask() == "from the other provider"

    page = console(PUBLISH, path=f"/admin/llmrouter/routerrevision/{older.pk}/change/")
    page.get_by_role("link", name="Publish again").click()
    expect(page.locator(".router-diff")).to_contain_text(provider.base_url)
    page.get_by_label("Why").fill("the other one is worse")
    shot("router-again")
    page.get_by_role("button", name="Publish again").click()
    expect(page.get_by_text("Published").first).to_be_visible()

    assert ask() == "from the first provider"
    page.goto("/admin/llmrouter/routerrevision/")
    expect(page.get_by_text("the other one is worse")).to_be_visible()
    shot("router-revisions")


def test_an_upstream_is_tested_before_it_is_published(console, shot, model, other_provider):
    requests = LLMRequestLog.objects.count()
    page = console(PUBLISH, PROBE, path=page_of(model))
    move(page, other_provider.base_url)
    result = page.locator(".probe-result").first
    for step, colour in ((refuse(401), "router-bad"), (answer(), "router-good")):
        other_provider.script(step)

        page.locator("button[name=_probe]").first.click()

        expect(result.locator(f".{colour}")).to_be_visible()
    result.scroll_into_view_if_needed()
    shot("router-test")

    assert len(other_provider.seen) == 2
    assert AuditEntry.objects.filter(action=PROBE).count() >= 2
    assert LLMRequestLog.objects.count() == requests
    model.refresh_from_db()
    assert model.upstreams.get().base_url != other_provider.base_url


def test_the_plan_is_explained(console, shot, model):
    page = console(PUBLISH, path=f"/admin/llmrouter/routermodel/{model.pk}/plan/")

    expect(page.locator("#attempts tbody tr")).to_have_count(1)
    shot("router-plan")


def test_who_may_only_look_finds_no_buttons(console, watch: Watch, model):
    page = console("llmrouter.view_routermodel", path=page_of(model))

    expect(page.locator("#preview-changes")).to_have_count(0)
    expect(page.locator("#publish-directly")).to_have_count(0)
    expect(page.locator("button[name=_probe]")).to_have_count(0)
    watch.allow(403)
    answered = page.goto(ADD)
    assert answered is not None
    assert answered.status == 403
