"""`/app/chat` in a browser: talking to a model, in windows that stay in step."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from django.utils import timezone

from accounts import keys
from tests.browser.chromium import MAX_WAIT_MS, BrowserContext, Page, Watch, expect
from tests.browser.talk import ask, delete, edit, notes, said, say, stored
from tests.factories import gateway
from tests.factories.gateway import Caller
from tests.fakes.proxy import SilentProxy
from tests.fakes.upstream import ScriptedUpstream, chunk, frames, refuse, stream
from tests.processes.conftest import InThread

Enter = Callable[..., Page]
FULL = "1,000 Flux"


@pytest.fixture
def caller(provider: ScriptedUpstream) -> Caller:
    """Somebody with Flux, and a model that the provider answers for."""
    provider.script(stream())
    gateway.make_route(provider.base_url)
    return gateway.make_caller(flux=1000)


@pytest.fixture
def enter(context: BrowserContext, caller: Caller) -> Enter:
    """Return what opens a window and signs in by the link that `./run` prints."""

    def open_one(within: BrowserContext = context, key: str = caller.key) -> Page:
        page = within.new_page()
        page.goto(f"/app/chat#key={key}")
        expect(page.locator("#state")).to_have_text("Connected")
        return page

    return open_one


@pytest.fixture
def elsewhere(browser, cable):
    """A second browser of the same person, whose network may fail: nobody watches its console."""
    context = browser.new_context(base_url=f"http://127.0.0.1:{cable.served.port}")
    context.set_default_timeout(MAX_WAIT_MS)
    yield context
    context.close()


@pytest.fixture
def cable(server):
    """The way of `elsewhere` to the server, which can be cut."""
    with (proxy := InThread(SilentProxy("127.0.0.1", server.port))):
        yield proxy


class TestTalking:
    def test_is_answered_word_by_word_and_seen_in_every_window(self, enter, provider, caller):
        first, second = enter(), enter()
        expect(first.locator("#balance")).to_have_text(FULL)
        provider.script(stream(frames("Once ", "upon ", "a ", "time"), pause_s=0.3))

        say(first, "Tell me a story")

        expect(first.locator("#draft")).to_contain_text("Once")
        for page in (first, second):
            expect(said(page)).to_have_text(["Tell me a story", "Once upon a time"])
            expect(notes(page)).to_have_text(["You", "Assistant"])
            expect(page.locator("#balance")).not_to_have_text(FULL)
            expect(page.get_by_role("button", name="Tell me a story")).to_be_visible()
        expect(first.locator("#draft")).to_be_hidden()
        assert provider.seen[-1].body["messages"] == [
            {"role": "user", "content": "Tell me a story"}
        ]
        assert stored(caller, "Once upon a time").role == "assistant"

    def test_goes_on_where_it_was_after_a_reload(self, enter, provider):
        page = enter()
        for question in ("first", "second"):
            ask(page, question)
        expect(said(page)).to_have_text(["first", "Hello", "second", "Hello"])
        page.reload()

        expect(said(page)).to_have_text(["first", "Hello", "second", "Hello"])
        say(page, "third")

        expect(said(page)).to_have_count(6)
        assert [each["content"] for each in provider.seen[-1].body["messages"]] == [
            "first", "Hello", "second", "Hello", "third",
        ]  # fmt: skip

    def test_shows_markup_as_the_text_it_is(self, enter, provider):
        attack = "<img src=x onerror=\"document.title='taken'\"><b>bold</b>"
        first, second = enter(), enter()
        provider.script(stream(frames(attack)))

        say(first, attack)

        for page in (first, second):
            expect(said(page)).to_have_text([attack, attack])
            expect(page.locator("#title")).to_have_text(attack)
            expect(page.locator("#app img, #app b")).to_have_count(0)
            expect(page).to_have_title("AIRI chat")

    def test_is_stopped_and_keeps_what_was_written(self, enter, provider, caller):
        first, second = enter(), enter()
        provider.script(stream([chunk("It was a dark ")], then="hang"))
        say(first, "Go on")
        expect(first.locator("#draft")).to_contain_text("It was a dark")

        first.get_by_role("button", name="Stop").click()

        for page in (first, second):
            expect(said(page)).to_have_text(["Go on", "It was a dark "])
        expect(first.get_by_role("button", name="Send")).to_be_visible()
        assert stored(caller, "It was a dark ").role == "assistant"
        expect(first.get_by_role("alert").locator("#notice")).to_be_hidden()


class TestWindowsInStep:
    def test_one_that_was_offline_catches_up_with_what_was_said_edited_and_deleted(
        self, enter, elsewhere, server, provider, caller
    ):
        here, there = enter(), enter(elsewhere)
        for text in ("to be deleted", "to be edited"):
            ask(here, text)
        expect(said(there)).to_have_count(4)
        elsewhere.set_offline(True)
        expect(there.locator("#state")).to_contain_text("trying again")

        edited, deleted = stored(caller, "to be edited"), stored(caller, "to be deleted")
        edit(server, caller, edited, "was edited")
        say(here, "said meanwhile")
        expect(said(here)).to_have_count(6)
        delete(caller, deleted)
        expect(said(there)).to_have_text(["to be deleted", "Hello", "to be edited", "Hello"])
        elsewhere.set_offline(False)

        expect(there.locator("#state")).to_have_text("Connected")
        expect(said(there)).to_have_text(
            ["Hello", "Hello", "was edited", "said meanwhile", "Hello"]
        )
        expect(notes(there).nth(2)).to_have_text("You · edited")
        here.reload()
        expect(said(here)).to_have_text(said(there).all_inner_texts())

    def test_one_whose_connections_were_cut_comes_back_by_itself(
        self, enter, elsewhere, cable, provider
    ):
        here, there = enter(), enter(elsewhere)
        ask(here, "hi")
        expect(said(there)).to_have_count(2)
        cable.call(cable.served.cut)
        expect(there.locator("#state")).to_contain_text("trying again")

        ask(here, "can you hear me?")
        expect(said(there)).to_have_count(2)
        cable.call(cable.served.mend)

        expect(there.locator("#state")).to_have_text("Connected", timeout=3 * MAX_WAIT_MS)
        expect(said(there)).to_have_text(["hi", "Hello", "can you hear me?", "Hello"])

    def test_what_was_said_offline_is_sent_when_the_network_is_back(
        self, enter, elsewhere, provider
    ):
        here, there = enter(), enter(elsewhere)
        say(here, "hi")
        expect(said(there)).to_have_text(["hi", "Hello"])
        elsewhere.set_offline(True)
        expect(there.locator("#state")).to_contain_text("trying again")

        say(there, "from the tunnel")
        expect(notes(there).nth(2)).to_have_text("You · not stored yet")
        elsewhere.set_offline(False)

        for page in (here, there):
            expect(said(page)).to_have_text(["hi", "Hello", "from the tunnel", "Hello"])
        expect(notes(there).nth(2)).to_have_text("You")

    def test_chats_are_made_renamed_and_deleted_by_keyboard(self, enter, provider):
        page, other = enter(), enter()
        ask(page, "about cats")
        expect(page.locator("#title")).to_have_text("about cats")

        page.get_by_role("button", name="New chat").press("Enter")
        expect(page.locator("#title")).to_have_text("New chat")
        expect(said(page)).to_have_count(0)
        page.get_by_role("button", name="Rename").press("Enter")
        page.get_by_role("textbox", name="Title of this chat").fill("About dogs")
        page.keyboard.press("Enter")
        expect(page.locator("#title")).to_have_text("About dogs")
        say(page, "woof")
        expect(other.locator("#chats .open")).to_have_text(["About dogs", "about cats"])

        for button in ("Cancel", "Delete"):
            page.get_by_role("button", name="Delete").press("Enter")
            page.get_by_role("dialog").get_by_role("button", name=button).press("Enter")
        expect(page.locator("#chats .open")).to_have_text(["about cats"])
        expect(said(page)).to_have_text(["about cats", "Hello"])


class TestTheKey:
    def test_leaves_the_address_at_once_and_stays_in_its_tab(self, enter, context, caller):
        page = enter()

        assert page.url.endswith("/app/chat")
        assert page.evaluate("sessionStorage.getItem('key')") == caller.key
        assert page.evaluate("localStorage.length") == 0
        stranger = context.new_page()
        stranger.goto("/app/chat")
        expect(stranger.get_by_label("API key")).to_be_focused()

        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("API key")).to_be_visible()
        assert page.evaluate("sessionStorage.length") == 0

    def test_that_is_taken_back_ends_what_it_began(self, enter, watch: Watch, caller):
        watch.allow(401)
        page = enter()

        keys.disable(user_id=caller.user_id, public_id=caller.key_id, at=timezone.now())

        expect(page.get_by_role("alert")).to_have_text(
            "This key is not accepted any more.", timeout=3 * MAX_WAIT_MS
        )
        assert page.evaluate("sessionStorage.length") == 0

    def test_that_is_bad_is_refused_in_words(self, context, watch: Watch, caller):
        watch.allow(401)
        page = context.new_page()
        page.goto("/app/chat")
        page.get_by_label("API key").fill("sk-airi-nope")
        page.keyboard.press("Enter")

        expect(page.get_by_role("alert")).to_have_text("This key is not accepted.")
        expect(page.locator("#app")).to_be_hidden()
        page.get_by_label("API key").fill(caller.key)
        page.keyboard.press("Enter")

        expect(page.locator("#state")).to_have_text("Connected")

    def test_without_flux_is_told_so(self, watch: Watch, enter, caller):
        watch.allow(402)
        page = enter(key=gateway.make_caller(flux=0).key)

        say(page, "hi")

        expect(page.get_by_role("alert")).to_have_text("There is not enough Flux for an answer.")
        expect(said(page)).to_have_text(["hi"])
        expect(page.get_by_role("button", name="Send")).to_be_visible()

    def test_whose_model_is_out_is_told_so(self, enter, elsewhere, provider):
        page = enter(elsewhere)
        provider.script(refuse(503))

        say(page, "hi")

        expect(page.get_by_role("alert")).to_have_text(re.compile("upstream|server", re.IGNORECASE))
        expect(said(page)).to_have_text(["hi"])


class TestLooks:
    TEXT = (
        "A cursor says how far you have come: everything up to that number has been applied.\n\n"
        "A push that begins right behind it moves it. One that leaves a hole is a reason to pull."
    )

    @pytest.mark.parametrize(
        "look",
        [
            ("light", 1280, "chat-page"),
            ("dark", 1280, "chat-page-dark"),
            ("light", 390, "chat-page-narrow"),
        ],
    )
    def test_fit_the_window_and_the_readers_eyes(self, enter, shot, provider, look):
        scheme, width, name = look
        page = enter()
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 800})
        provider.script(stream(frames(*re.split(r"(?<= )", self.TEXT))))
        for question in ("What is a cursor in a chat?", "And what moves it?"):
            ask(page, question)
        shot(name)

        widest = page.evaluate("document.documentElement.scrollWidth")
        assert widest <= width
        background = page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
        assert (background == "rgb(20, 21, 26)") == (scheme == "dark")
        if width < 700:
            expect(page.get_by_role("navigation", name="Chats")).to_be_hidden()
            page.get_by_role("button", name="Chats", exact=True).click()
            page.locator("#chats .open").first.click()
            expect(said(page)).to_have_count(4)
