import asyncio
from types import SimpleNamespace

import pytest

pytest.importorskip("ray.serve", reason="needs duologue[ray]")

from duologue.ray._tickets import MAX_SESSIONS, DeskActor, RayTickets, TicketDesk


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_ticket_is_claimed_once():
    desk = TicketDesk()
    desk.issued("replica", "session", "digest", 60)
    assert desk.claim("session", "wrong") is None
    assert desk.claim("other", "digest") is None
    assert desk.claim("session", "digest") == "replica"
    assert desk.claim("session", "digest") is None


def test_the_ticket_before_the_newest_one_is_valid_too():
    for shown, valid in (("first", False), ("second", True), ("third", True)):
        desk = TicketDesk()
        for digest in ("first", "second", "third"):
            desk.issued("replica", "session", digest, 60)
        assert (desk.claim("session", shown) is not None) is valid


def test_a_replica_that_takes_a_conversation_up_begins_anew():
    desk = TicketDesk()
    desk.issued("one", "session", "first", 60)
    desk.issued("two", "session", "second", 60)
    assert desk.claim("session", "first") is None
    assert desk.claim("session", "second") == "two"


def test_a_ticket_expires():
    clock = Clock()
    desk = TicketDesk(clock)
    desk.issued("replica", "session", "digest", 60)
    clock.now = 60
    assert desk.claim("session", "digest") is None


def test_only_the_replica_that_has_a_conversation_ends_it():
    desk = TicketDesk()
    desk.issued("two", "session", "digest", 60)
    desk.ended("one", "session")
    assert desk.claim("session", "digest") == "two"
    desk.issued("two", "session", "digest", 60)
    desk.ended("two", "session")
    assert desk.claim("session", "digest") is None


def test_the_oldest_conversation_is_forgotten():
    desk = TicketDesk()
    for number in range(MAX_SESSIONS + 1):
        desk.issued("replica", str(number), "digest", 60)
    assert desk.claim("0", "digest") is None
    assert desk.claim("1", "digest") == "replica"


async def test_the_replica_that_had_a_conversation_is_told_that_another_one_has_it():
    desk = DeskActor()
    await desk.issued("one", "session", "digest", 60)
    waiting = asyncio.create_task(desk.taken("one"))
    await asyncio.sleep(0)
    assert await desk.claim("two", "session", "digest") is True
    assert await asyncio.wait_for(waiting, 1) == "session"


async def test_a_replica_that_takes_up_its_own_conversation_is_not_told():
    desk = DeskActor()
    await desk.issued("one", "session", "digest", 60)
    waiting = asyncio.create_task(desk.taken("one"))
    await asyncio.sleep(0)
    assert await desk.claim("one", "session", "digest") is True
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()


class LocalDesk:
    """A desk in this process, with the interface of a handle of Ray."""

    def __init__(self) -> None:
        self.desk = DeskActor()

    def options(self, **options: object) -> "LocalDesk":
        return self

    def remote(self) -> "LocalDesk":
        return self

    def __getattr__(self, name: str) -> object:
        return SimpleNamespace(remote=getattr(self.desk, name))


class DeadStore:
    async def issued(self, session_id: str, digest: str, keep_s: float) -> None:
        raise OSError("the store is away")

    async def claim(self, session_id: str, digest: str) -> bool:
        raise OSError("the store is away")

    async def ended(self, session_id: str) -> None:
        raise OSError("the store is away")


async def test_the_desk_has_the_tickets_while_the_store_is_away(monkeypatch):
    desk = LocalDesk()
    monkeypatch.setattr("duologue.ray._tickets.ray.remote", lambda actor: desk)
    one, two = (RayTickets(60, lambda session_id: None, DeadStore()) for _ in range(2))
    with pytest.raises(OSError, match="away"):
        await one.issued("session", "digest", 30)
    assert await two.claim("session", "digest") is True
    with pytest.raises(OSError, match="away"):
        await two.issued("session", "next", 30)
    with pytest.raises(OSError, match="away"):
        await two.ended("session")
    with pytest.raises(OSError, match="away"):
        await one.claim("session", "next")
