"""Error pages: HTML with the request id in place of a page of the console or of `/app/`.

They stand alone: no context processor, no session and no database is asked, because any of those
may be what has failed. What programs get instead is in `error_responses`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from django.conf import settings
from django.http import HttpResponse
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.utils.html import format_html

from airi_server.kernel import context, refusals
from airi_server.kernel.errors import DomainError

logger = logging.getLogger(__name__)

CONSOLE: Final = f"/{settings.ADMIN_PATH}/"
APP: Final = "/app/"
PAGES: Final = (CONSOLE, "/static/", APP)
"""Under these a person looks, with a browser."""
BARE: Final = frozenset(page.rstrip("/") for page in PAGES)
STYLE: Final = "console/errors.css"
NOTHING_CHANGED: Final = "Nothing was changed."


@dataclass(frozen=True, slots=True)
class Story:
    """What happened, in a sentence, what follows from it, and whether to come again or log in."""

    heading: str
    why: str
    again: str = ""
    is_session_over: bool = False


SESSION_OVER: Final = Story(
    "Your session is over",
    f"You are not logged in, or no longer. {NOTHING_CHANGED}",
    is_session_over=True,
)
STALE_FORM: Final = Story(
    "This form is no longer valid",
    "Since it was opened you have logged in or out, or the browser has dropped its cookies. "
    f"{NOTHING_CHANGED}",
    again="Open the page again",
    is_session_over=True,
)
NOT_ALLOWED: Final = Story(
    "This address is no page",
    f"It belongs to a button or a form and cannot be opened by itself. {NOTHING_CHANGED}",
)
STORIES: Final = {
    400: Story("This could not be read", f"The server does not understand the request. "
               f"{NOTHING_CHANGED}"),
    401: SESSION_OVER,
    403: Story("You may not do this", "Whoever manages the groups can give the permission for it."),
    404: Story("There is no such page", "The address is wrong, or what was there is gone."),
    405: NOT_ALLOWED,
    408: Story("This took too long to arrive", f"{NOTHING_CHANGED}", again="Open the page again"),
    413: Story("This is too much at once", NOTHING_CHANGED, again="Open the page again"),
    500: Story(
        "The server has made a mistake",
        "It is in the server's log, under the request id below. If this was a form, look whether "
        "it has taken effect before you send it again.",
        again="Try again",
    ),
    503: Story(
        "The server cannot do this right now",
        "Something it needs is away, mostly the database. If this was a form, look whether it has "
        "taken effect before you send it again.",
        again="Try again",
    ),
}  # fmt: skip


def covers(path: str) -> bool:
    """Return whether it is a person who looks at this path."""
    return path.startswith(PAGES) or path in BARE


def of(error: DomainError, path: str) -> HttpResponse:
    """Return a refusal, or a crash, as a page."""
    story = STORIES.get(error.status)
    if story is None:
        story = Story(error.message, NOTHING_CHANGED, again="Try again")
    elif error.status in (400, 413, 429):
        story = Story(story.heading, f"{error.message} {NOTHING_CHANGED}", again=story.again)
    return page(error.status, story, path, headers=refusals.headers(error))


def page(
    status: int, story: Story, path: str, *, headers: dict[str, str] | None = None
) -> HttpResponse:
    """Return a story with the request id and the ways on."""
    response = HttpResponse(_markup(status, story, path), status=status)
    for name, value in (
        ("Cache-Control", "no-store"),
        ("Referrer-Policy", settings.SECURE_REFERRER_POLICY),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", settings.X_FRAME_OPTIONS),
        *(headers or {}).items(),
    ):
        response.headers[name] = value
    return response


def _markup(status: int, story: Story, path: str) -> str:
    request_id = context.request_id.get()
    try:
        shown = {
            "status": status,
            "story": story,
            "ways": _ways(story, path),
            "request_id": request_id,
            "style": _style(),
        }
        return render_to_string("error.html", shown)
    except Exception:
        logger.exception("Unable to render the error page")
        text = "<!DOCTYPE html><html lang=en><title>{0}</title><h1>{0}</h1><p>{1}</p><p>{2}</p>"
        return format_html(text, story.heading, story.why, request_id)


def _ways(story: Story, path: str) -> list[tuple[str, str]]:
    """Return what to press: the first is what most will want. Addresses, without asking routes."""
    here = quote(path)
    found = []
    if story.again:
        found.append((story.again, here))
    if story.is_session_over and path.startswith(CONSOLE):
        found.append(("Log in", f"{CONSOLE}login/?next={quote(here, safe='/')}"))
    if path.startswith(APP):
        found.append(("Chat", f"{APP}chat"))
    else:
        found.append(("Start page", CONSOLE))
    return found


def _style() -> str:
    try:
        return static(STYLE)
    except ValueError:  # it has not been collected
        return f"{settings.STATIC_URL}{STYLE}"
