"""One candidate of one process, and a clock of the test's own."""

from __future__ import annotations

import functools

from llmrouter.configuration import routes
from llmrouter.routing.breakers import RULES
from llmrouter.routing.evidence import BreakerOutcome, FailedAttempt, name_of
from llmrouter.routing.failures import Blame
from llmrouter.routing.planning import WELL, Attempt, HealthVerdict, PlannedAs, Rank
from llmrouter.routing.scopes import Scopes
from tests.factories.llmrouter import chat_tree

FIRST, LAST, REFUSE = Rank
LONG_S = 30.0
"""Longer than it has to be quiet."""


@functools.cache
def the_route() -> routes.Route:
    """Return the same keys each time: one that is sealed again is another."""
    return routes.compile(chat_tree("m"), 1).llm["m"]


class Played:
    """One candidate of one process; `now` moves by `wait`."""

    def __init__(self, start: float = 50.0) -> None:
        route = the_route()
        upstream = route.upstreams[0]
        self.attempt = Attempt(1, route, upstream, upstream.keys[0], 0, 0)
        self.scopes = Scopes()
        self.now = start

    def wait(self, seconds: float) -> Played:
        self.now += seconds
        return self

    def scope(self, blame: Blame) -> str:
        of_key = RULES[blame].of_key
        return self.attempt.key.health_id if of_key else self.attempt.upstream.target_id

    def fail(
        self, blame, caller="a", asked="1", *, sent=None, wait_s=None, attempt=None
    ) -> BreakerOutcome:
        """Note a failure; `sent` is how long before now its request was."""
        is_probe = attempt is not None and self.scopes.give_back(attempt)
        return self.scopes.fail(
            FailedAttempt(
                self.scope(blame), blame, name_of(caller), asked, self.now,
                self.now - (sent or 0.0), wait_s, is_probe, "reason",
            )
        )  # fmt: skip

    def serve(self, caller="served", *, took=0.0) -> None:
        """Note an answer that has begun now, of a request sent `took` before."""
        sent = self.now - took
        self.scopes.succeed(self.attempt.key.health_id, caller, sent, self.now)
        self.scopes.succeed(self.attempt.upstream.target_id, caller, self.now, self.now)

    def open(self, blame: Blame) -> Played:
        """Open the breaker by two callers, `a` and `b`."""
        self.fail(blame, "a", "1")
        self.wait(LONG_S)
        assert self.fail(blame, "b", "2").opens
        return self

    def verdict(self, caller: str = "new") -> HealthVerdict:
        return self.scopes.verdict(self.attempt.upstream, self.attempt.key, caller, self.now)

    def rank(self, caller: str = "new") -> Rank:
        return self.verdict(caller).rank

    def try_acquire(self, caller="new", *, place=PlannedAs.OWN, has_others=False):
        """Return the attempt that may go, or the rank that keeps it."""
        attempt = self.attempt._replace(place=place)
        verdict = self.scopes.try_acquire(attempt, caller, has_others=has_others, now=self.now)
        return attempt if verdict is WELL else verdict.rank

    def standing(self, blame: Blame):
        return self.scopes.standing(self.scope(blame), blame, self.now)
