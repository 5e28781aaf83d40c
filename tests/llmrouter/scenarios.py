"""Who asks and what fails in each scenario of blame, with bounds on what it may cost innocents."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

from llmrouter.configuration import routes
from llmrouter.routing.failures import Blame
from tests.factories.llmrouter import chat_model, chat_tree, sealed_key, upstream
from tests.llmrouter.health_world import Answer, Asked, Crowd, Says, Seen, World

PEOPLE: Final = [f"innocent-{number}" for number in range(20)]
DEAD = Says(Blame.DEAD, 401, takes_s=0.1)
DOUBT = Says(Blame.DOUBT, 403)
EMPTY = Says(Blame.DOUBT, 402, takes_s=0.1)
SIZE = Says(Blame.RATE, 429, asked_s=20)
SICK = Says(Blame.SICK, 500)
GOOD = Says()


@cache
def table_of(*keys: int) -> routes.Table:
    """Return routes to upstreams `x`, `y`, `z` with so many keys each, `k1` and so on."""
    upstreams = [
        upstream(
            id=name,
            base_url=f"https://{name}.example/v1",
            keys=[sealed_key(model="m", key_id=f"k{at + 1}") for at in range(count)],
        )
        for name, count in zip("xyz", keys, strict=False)
    ]
    return routes.compile(chat_tree(m=chat_model(*upstreams)), 1)


def people(per_s: float = 5.0, **fields: object) -> Crowd:
    return Crowd(**{"names": PEOPLE, "per_s": per_s, **fields})  # type: ignore[arg-type]


def attackers(count: int, per_s: float, **fields: object) -> Crowd:
    names = [f"attacker-{number}" for number in range(count)]
    given = {"names": names, "per_s": per_s, "is_innocent": False, "poison": 1.0, **fields}
    return Crowd(**given)  # type: ignore[arg-type]


def poisoned(says: Says) -> Answer:
    """Everybody is served but who sends poison."""
    return lambda _upstream, _key, asked, _at: says if asked.poison else GOOD


def broken(says: Says, is_broken: Callable[[str, str, float], bool]) -> Answer:
    """The place and the time decide, whoever asks."""

    def answer(upstream_id: str, key_id: str, _asked: Asked, at: float) -> Says:
        return says if is_broken(upstream_id, key_id, at) else GOOD

    return answer


@dataclass(frozen=True)
class Scenario:
    """`failed`: at most, in percent of what some upstream could have served; `wasted`: in calls."""

    name: str
    keys: tuple[int, ...]
    answer: Answer
    crowds: tuple[Crowd, ...]
    failed: float
    wasted: int | None = None
    seconds: float = 300.0
    instances: int = 1
    has_redis: bool = True

    def run(self, seed: int) -> Seen:
        world = World(
            table_of(*self.keys), self.answer, seed=seed, instances=self.instances,
            has_redis=self.has_redis,
        )  # fmt: skip
        return world.run(list(self.crowds), seconds=self.seconds)


def from_100(upstream_id: str, key_id: str, at: float) -> bool:
    return (upstream_id, key_id) == ("x", "k1") and at >= 100


def until(end: float, begin: float = 100.0) -> Callable[[str, str, float], bool]:
    return lambda upstream_id, _key, at: upstream_id == "x" and begin <= at < end


class Once:
    """One request in its time is told 401."""

    def __init__(self) -> None:
        self._told = -1.0

    def __call__(self, _upstream: str, _key: str, asked: Asked, at: float) -> Says:
        if asked.at < 1:
            self._told = -1.0
        if at >= 100 and self._told in (-1.0, asked.at):
            self._told = asked.at
            return DEAD
        return GOOD


SCENARIOS: Final = (
    Scenario(
        "nameless 403, random bodies", (1,), poisoned(DOUBT), (people(), attackers(1, 20)), 0,
        seconds=60,
    ),
    Scenario(
        "image to a text model, 500", (1,), poisoned(SICK),
        (people(), attackers(1, 2, fingerprint="image")), 0,
    ),
    Scenario(
        "two accounts, random 500s", (1,), poisoned(SICK), (people(), attackers(2, 20)), 0.1,
        seconds=60,
    ),
    Scenario(
        "eight accounts, rare innocents", (1,), poisoned(SICK), (people(0.2), attackers(8, 40)), 3,
        seconds=60,
    ),
    Scenario(
        "a hundred accounts after a minute of peace", (1,), poisoned(SICK),
        (people(), attackers(100, 40, begins=60)), 1, seconds=90,
    ),
    Scenario(
        "a hundred accounts, people never served", (1,), poisoned(SICK),
        (people(0.2, names=[f"p{n}" for n in range(1000)]), attackers(100, 40)), 80, seconds=60,
    ),
    Scenario(
        "a flagged prompt shared by twenty", (1,), poisoned(DOUBT),
        (people(), attackers(20, 5, fingerprint="flagged")), 0, seconds=60,
    ),
    Scenario(
        "429 for one caller's size", (1,), poisoned(SIZE), (people(), attackers(1, 20)), 0,
        seconds=60,
    ),
    Scenario(
        "poison inside one big caller", (1,), poisoned(DOUBT),
        (people(25, names=["big"], poison=0.8),), 0.1, seconds=60,
    ),
    Scenario("one spurious 401", (1,), Once(), (people(),), 1),
    Scenario("a key dies, second key", (2,), broken(DEAD, from_100), (people(),), 0, 20),
    Scenario(
        "one user, one key, 401 for 140 s", (1,), broken(DEAD, until(240)),
        (people(1, names=["only"]),), 20, 8,
    ),
    Scenario("account empty, second key", (2,), broken(EMPTY, from_100), (people(),), 0, 60),
    Scenario(
        "dead key says 400, second upstream", (1, 1), broken(DEAD, from_100), (people(),), 0, 20
    ),
    Scenario("model missing, second upstream", (1, 1), broken(SICK, from_100), (people(),), 0, 60),
    Scenario("outage, second upstream", (1, 1), broken(SICK, until(220)), (people(),), 0, 60),
    Scenario(
        "outage, three keys, second upstream", (3, 1), broken(SICK, until(220)), (people(),), 0, 60
    ),
    Scenario("outage, no other", (1,), broken(SICK, until(220)), (people(),), 3, 300),
    Scenario(
        "flapping every 20 s", (1, 1), broken(SICK, lambda u, _k, at: u == "x" and at % 40 >= 20),
        (people(),), 0, 400,
    ),
    Scenario(
        "99 % one caller, outage", (1, 1), broken(SICK, until(220)),
        (people(4.95, names=["big"]), people(0.05)), 0, 150,
    ),
    Scenario(
        "once a minute, dead key, second", (2,), broken(DEAD, lambda _u, k, _at: k == "k1"),
        (people(1 / 60),), 0, 20, seconds=1800,
    ),
    Scenario(
        "four instances without Redis, dead key", (2,), broken(DEAD, from_100), (people(),), 0, 60,
        instances=4, has_redis=False,
    ),
    Scenario(
        "two instances, outage of 30 s", (1,), broken(SICK, until(130)), (people(),), 1, 200,
        instances=2,
    ),
)  # fmt: skip


def random_world(seed: int) -> Seen:
    """Run one attacker against innocents in a world made up by a seed."""
    dice = random.Random(seed)
    blames = dice.sample([Blame.DEAD, Blame.DOUBT, Blame.RATE, Blame.SICK], dice.randint(1, 3))
    takes_s = 10 ** dice.uniform(-1.5, 1.0)
    good = Says(takes_s=10 ** dice.uniform(-1.5, 1.0))

    def answer(_upstream_id: str, _key_id: str, asked: Asked, _at: float) -> Says:
        if not asked.poison:
            return good
        asked_s = dice.choice([None, 1, 40, 600])
        return Says(dice.choice(blames), dice.choice([401, 429, 500]), asked_s, takes_s)

    world = World(
        table_of(*(dice.randint(1, 3) for _ in range(dice.randint(1, 3)))), answer, seed=seed,
        instances=dice.randint(1, 4), has_redis=dice.random() < 0.7,
    )  # fmt: skip
    innocents = people(
        10 ** dice.uniform(-1.3, 0.7), names=[f"i{n}" for n in range(dice.randint(1, 100))]
    )
    fingerprint = dice.choice([None, "again"])
    attacker = attackers(
        1, 10 ** dice.uniform(-0.7, 1.3), fingerprint=fingerprint, begins=dice.uniform(0, 60)
    )
    return world.run([innocents, attacker], seconds=100)
