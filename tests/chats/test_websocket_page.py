"""`docs/websocket.md`: its frames are the protocol's, and its client works as it stands there."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from django.conf import settings

from accounts import keys
from airi_server.kernel.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    ServerError,
    Unavailable,
)
from airi_server.kernel.threads import in_thread
from chats import deletion, messages, models, rooms
from chats.api.tickets import TicketOut
from chats.sockets import calls, consumers, hub, outbox, protocol, watch
from chats.sockets.protocol import CloseCode
from tests.chats import frames

PAGE = (settings.BASE_DIR / "docs" / "websocket.md").read_text()
NOW = datetime(2026, 3, 1, tzinfo=UTC)
MAX_CLIENT_LINES = 60
db = in_thread


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


class TestFrames:
    @pytest.mark.parametrize("text", blocks("json"))
    def test_on_the_page_are_what_the_models_say(self, text):
        frames.check(json.loads(text))

    def test_on_the_page_are_of_every_kind(self):
        shown = {frames.check(json.loads(text)) for text in blocks("json")}

        assert shown >= {
            *protocol.EVENTS,
            *protocol.CALLS,
            *(f"{call.tag}-receive-" for call in protocol.CALLS.values()),
        }
        assert any(kind.endswith("-receive-error-") for kind in shown)

    def test_on_the_page_come_in_every_envelope(self):
        shown = [json.loads(text).keys() for text in blocks("json")]

        assert {"type", "payload"} in shown
        assert {"deliveryId", "hopsRemaining", "eventa"} in shown
        assert protocol.EnvelopeMerged.model_json_schema()["properties"].keys() in shown

    def test_have_a_ticket_among_them(self):
        (text,) = blocks("json ticket")

        frames.exact(TicketOut, json.loads(text))


class TestTables:
    def test_have_every_close_code(self):
        assert {int(code) for code in re.findall(r"^\| (\d{4}) \|", PAGE, re.MULTILINE)} == {
            int(code) for code in CloseCode
        }

    @pytest.mark.parametrize(
        "refusal", [InvalidRequest, Forbidden, NotFound, Conflict, Unavailable, ServerError]
    )
    def test_have_every_error_a_call_can_be_rejected_with(self, refusal):
        assert f"| `{refusal.code}` | {refusal.status} |" in PAGE

    @pytest.mark.parametrize(
        "line",
        [
            f"| frame from a client | {protocol.MAX_FRAME_BYTES:,} bytes |",
            f"| messages in one call, page or push | {models.MAX_MESSAGES} |",
            f"| content of a message | {models.MAX_CONTENT_BYTES:,} bytes of UTF-8",
            f"| messages of one call together | {messages.MAX_SEND_LENGTH:,} characters |",
            f"more than one message | {models.MAX_PAGE_BYTES:,} bytes |",
            f"| `token` | {protocol.MAX_TOKEN:,} characters |",
            f"{calls.SENDS_AT_ONCE} sends and {calls.PULLS_AT_ONCE} pulls",
            f"| frames of one socket | {consumers.FRAMES_PER_S:,} each second;",
            f"| {consumers.MAX_UNAUTHENTICATED} in a process,",
            f" in a process, {consumers.MAX_PER_ADDRESS} from one address",
            f"of at most {protocol.MAX_ANONYMOUS_FRAME_BYTES:,} bytes,",
            f"within {consumers.AUTHENTICATE_S:.0f} s",
            f"of 1 to\n{protocol.MAX_INVOKE_ID} characters",
            f"within {watch.EVERY_S:.0f} s",
            f"{outbox.MAX_PUSHED_FRAMES} pushes or {outbox.MAX_PUSHED_LENGTH >> 20} MiB",
            f"{messages.DEFAULT_PAGE} without it,\nat most {models.MAX_MESSAGES}.",
        ],
    )
    def test_and_sentences_have_the_bounds_of_the_code(self, line):
        assert line in PAGE


(CLIENT,) = blocks("python")


class Running:
    """The page's client in a process of its own; what it prints is read line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def printed(self) -> tuple[int, str]:
        """Return number and text of the next change."""
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            line = (await self.process.stdout.readline()).decode()
        assert line, "it has ended"
        seq, _, text = line.strip().split(" ", 2)
        return int(seq), text

    async def ended(self) -> tuple[int, str]:
        """Return its exit code and the last line it left on stderr."""
        assert self.process.stderr is not None
        async with asyncio.timeout(30):
            told = (await self.process.stderr.read()).decode().strip().splitlines()
            return await self.process.wait(), told[-1] if told else ""


@pytest_asyncio.fixture
async def run(people):
    """Return what runs the page's client with its arguments, as somebody."""
    started = []

    async def start(name, room, *texts, key=None):
        url = people.served.base_url.replace("http", "ws", 1)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, url,
            people.token_of(name) if key is None else key, room, *texts,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return Running(process)

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.django_db(transaction=True)
@pytest.mark.asyncio
class TestClient:
    async def test_is_short(self):
        assert len([line for line in CLIENT.splitlines() if line]) <= MAX_CLIENT_LINES

    async def test_sends_hears_reconnects_and_misses_nothing(self, people, run):
        room = await people.room("ria", "mio")
        mio = await people.join("mio")
        await mio.send(room, "before")
        ria = await run("ria", room, "hello there")

        heard = [await ria.printed() for _ in range(2)]
        await mio.send(room, "pushed")
        heard.append(await ria.printed())
        for socket in hub.current().registry.of([people.id_of("ria")]):
            socket.close(CloseCode.RESTARTING, "restarting")
        await mio.send(room, "while away")
        first = (await mio.pull(room))["messages"][0]["id"]
        await db(deletion.delete_message)(
            caller=people.id_of("mio"), chat_id=room, message_id=first, at=NOW
        )
        heard += [await ria.printed() for _ in range(2)]
        await mio.send(room, "pushed again")
        heard.append(await ria.printed())

        assert heard == [
            (1, "before"), (2, "hello there"), (3, "pushed"), (4, "while away"),
            (5, "(deleted)"), (6, "pushed again"),
        ]  # fmt: skip

    async def test_stops_when_its_key_does_not_stand_any_more(self, people, run):
        room = await people.room("ria")
        ria = await run("ria", room, "hello")
        await ria.printed()

        key = people.keys["ria"][0]
        await db(keys.disable)(user_id=key.user_id, public_id=key.public_id, at=NOW)

        code, told = await ria.ended()
        assert code == 1
        assert "does not take this key, or not any more (4001)" in told

    @pytest.mark.parametrize("key", ["sk-airi-wrong", "sk-proj-of-somebody-else", "", "schlüssel"])
    async def test_says_so_when_its_key_is_wrong(self, people, run, key):
        room = await people.room("ria")

        code, told = await (await run("ria", room, "hello", key=key)).ended()

        assert code == 1
        assert "does not take this key" in told

    async def test_ends_when_its_chat_is_deleted(self, people, run):
        room = await people.room("ria")
        ria = await run("ria", room, "hello")
        await ria.printed()

        await db(rooms.delete)(caller=people.id_of("ria"), chat_id=room, at=NOW)

        code, told = await ria.ended()
        assert code == 1
        assert "Chat not found" in told

    async def test_ends_with_what_the_server_says_is_wrong(self, people, run):
        await people.know("ria")

        code, told = await (await run("ria", "no-such-chat")).ended()

        assert (code, told) == (1, "SystemExit: Chat not found")

    async def test_sends_an_edit_in_the_place_of_what_still_waits(self, people):
        room = await people.room("ria")
        page: dict[str, Any] = {"__name__": "page"}
        exec(CLIENT, page)
        url = people.served.base_url.replace("http", "ws", 1)
        ria = page["Chat"](url, people.token_of("ria"), room, "first", "second")
        first, second = ria.outbox
        ria.outbox[first] = "first, mended"  # before it was ever sent
        staying = asyncio.create_task(ria.stay())
        await _until(lambda: ria.cursor == 2)
        ria.outbox[second] = "second, mended"  # of what the server has
        ria.reason.set()
        await _until(lambda: ria.cursor == 3)
        await _left(staying)

        assert [ria.rows[each]["content"] for each in (first, second)] == [
            "first, mended", "second, mended",
        ]  # fmt: skip
        assert ria.outbox == {}

    async def test_keeps_an_edit_that_comes_while_the_message_is_sent(self, people):
        room = await people.room("ria")
        page: dict[str, Any] = {"__name__": "page"}
        exec(CLIENT, page)
        url = people.served.base_url.replace("http", "ws", 1)
        ria = page["Chat"](url, people.token_of("ria"), room, "sent")
        (sent,) = ria.outbox
        call = ria.call

        async def edited_meanwhile(tag, **content):
            if tag == "chat:send-messages" and ria.outbox[sent] == "sent":
                ria.outbox[sent] = "edited"
                ria.reason.set()
            return await call(tag, **content)

        ria.call = edited_meanwhile
        staying = asyncio.create_task(ria.stay())
        await _until(lambda: ria.cursor == 2)
        await _left(staying)

        assert (ria.rows[sent]["content"], ria.outbox) == ("edited", {})

    async def test_pulls_what_no_push_has_brought(self, people, monkeypatch):
        room = await people.room("ria", "mio")
        ria = await people.join("ria")
        await ria.send(room, "1")
        page: dict[str, Any] = {"__name__": "page"}
        exec(CLIENT, page)
        url = people.served.base_url.replace("http", "ws", 1)
        mio = page["Chat"](url, people.token_of("mio"), room)
        mio.pause_s = 2  # until its first pulls are done
        staying = asyncio.create_task(mio.stay())
        await _until(lambda: (mio.cursor, mio.pause_s) == (1, 1))

        lost: list[int] = []
        with monkeypatch.context() as losing:
            losing.setattr(
                outbox.Outbox, "push", lambda _, text: lost.append(_body_of(text)["toSeq"])
            )
            await ria.send(room, "2")
            await ria.send(room, "3")
            await _until(lambda: 3 in lost)
        assert mio.cursor == 1
        await ria.send(room, "4")
        await _until(lambda: mio.cursor == 4)
        await _left(staying)

        assert sorted(row["content"] for row in mio.rows.values()) == ["1", "2", "3", "4"]


def _body_of(text):
    return json.loads(text)["payload"]["body"]


async def _left(staying):
    """End a client as a terminal does; what its socket says in the middle of a frame is its own."""
    staying.cancel()
    await asyncio.wait([staying])
    if not staying.cancelled():
        staying.exception()


async def _until(holds):
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)
