"""Live connections: sockets and users of each instance, which is asked when the page is opened."""

from __future__ import annotations

from dataclasses import dataclass

from airi_server.runtime import instances
from chats import presence


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance that runs; without numbers it has not answered, or was not asked."""

    instance: str
    sockets: int | None = None
    users: int | None = None


@dataclass(frozen=True, slots=True)
class Connections:
    """Every instance. `has_asked`: whether Redis could carry the question to the others."""

    instances: tuple[Instance, ...]
    has_asked: bool

    @property
    def silent(self) -> list[str]:
        """Return those that run and were asked, but did not answer in time."""
        silent = [each.instance for each in self.instances if each.sockets is None]
        return silent if self.has_asked else []


def now() -> Connections:
    """Ask every instance, and add those that PostgreSQL knows of and that say nothing."""
    found = presence.ask()
    told = {
        instances.shown(each.instance): Instance(each.instance, each.sockets, each.users)
        for each in found.present
    }
    running = sorted({*told, *instances.live()})
    listed = tuple(told.get(name, Instance(name)) for name in running)
    return Connections(listed, has_asked=found.has_asked)
