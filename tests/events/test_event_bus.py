import asyncio
import threading
from contextlib import asynccontextmanager
from functools import partial

import pytest

from duologue.errors import ConfigError
from duologue.events import (
    AgentTurnEndedEvent,
    AgentTurnStartedEvent,
    ErrorEvent,
    Event,
    UserTranscriptEvent,
    UserTurnStartedEvent,
)
from duologue.events.bus import QUEUE_LIMIT, EventBus
from duologue.testing import virtual_time

type Turns = AgentTurnStartedEvent | UserTurnStartedEvent


def text(words):
    return UserTranscriptEvent(words, True, "p")


@asynccontextmanager
async def running(bus):
    async with asyncio.TaskGroup() as tasks:
        bus.start(tasks)
        try:
            yield
        finally:
            await bus.drain()
            bus.stop()


@virtual_time
async def test_a_handler_gets_the_events_of_its_annotation():
    bus, got = EventBus(), {"one": [], "union": [], "alias": [], "all": [], "string": []}

    @bus.subscribe
    async def one(event: UserTranscriptEvent):
        got["one"].append(event)

    @bus.subscribe
    def union(event: UserTranscriptEvent | AgentTurnEndedEvent) -> None:
        got["union"].append(event)

    @bus.subscribe
    def alias(event: Turns) -> None:
        got["alias"].append(event)

    @bus.subscribe
    def everything(event: Event) -> None:
        got["all"].append(event)

    @bus.subscribe
    def string(event: "UserTurnStartedEvent") -> None:
        got["string"].append(event)

    sent = [
        text("a"),
        UserTurnStartedEvent("p"),
        AgentTurnStartedEvent("s"),
        AgentTurnEndedEvent("s", interrupted=False),
        text("b"),
    ]
    async with running(bus):
        for event in sent:
            bus.emit(event)
    assert got["one"] == [sent[0], sent[4]]
    assert got["union"] == [sent[0], sent[3], sent[4]]
    assert got["alias"] == sent[1:3]
    assert got["all"] == sent
    assert got["string"] == [sent[1]]


@virtual_time
async def test_methods_and_objects_may_be_handlers():
    class Logger:
        def __init__(self):
            self.got = []

        def on_text(self, event: UserTranscriptEvent) -> None:
            self.got.append(event)

        def __call__(self, event: UserTranscriptEvent) -> None:
            self.got.append(event)

    bus, logger = EventBus(), Logger()
    bus.subscribe(logger.on_text)
    bus.subscribe(logger)
    async with running(bus):
        bus.emit(text("a"))
    assert logger.got == [text("a")] * 2


def no_annotation(event): ...


def wrong_type(event: int): ...


def half_wrong(event: UserTranscriptEvent | str): ...


def no_argument(): ...


def unknown_name(event: "NoSuchEvent"): ...  # type: ignore[name-defined]  # noqa: F821


def no_such_part(event: "asyncio.NoSuchEvent"): ...  # type: ignore[name-defined]


@pytest.mark.parametrize(
    "handler",
    [
        no_annotation,
        wrong_type,
        half_wrong,
        no_argument,
        unknown_name,
        no_such_part,
        partial(wrong_type),
    ],
)
def test_an_annotation_that_is_no_event_is_refused_at_once(handler):
    with pytest.raises(ConfigError, match=r"event|annotate"):
        EventBus().subscribe(handler)


@virtual_time
async def test_a_slow_handler_keeps_its_order_and_delays_no_other():
    bus, slow, quick = EventBus(), [], []
    loop = asyncio.get_running_loop()

    @bus.subscribe
    async def dawdle(event: UserTranscriptEvent):
        await asyncio.sleep(0.05)
        slow.append(event.text)

    @bus.subscribe
    def at_once(event: UserTranscriptEvent):
        quick.append((event.text, loop.time()))

    async with running(bus):
        for letter in "abc":
            bus.emit(text(letter))
        await asyncio.sleep(0.01)
        assert [t for t, _ in quick] == ["a", "b", "c"]
        assert slow == []
    assert slow == ["a", "b", "c"]


@virtual_time
async def test_a_failing_handler_is_reported_and_gets_further_events():
    bus, errors, got = EventBus(), [], []

    @bus.subscribe
    async def fragile(event: UserTranscriptEvent):
        if event.text == "bad":
            raise ValueError("no good")
        if event.text == "worse":
            raise asyncio.CancelledError
        got.append(event.text)

    @bus.subscribe
    def on_error(event: ErrorEvent):
        errors.append(event)
        raise RuntimeError("the one who hears of errors fails, too")

    async with running(bus):
        for word in ("bad", "good", "worse", "good"):
            bus.emit(text(word))
    assert got == ["good", "good"]
    assert {error.source.rpartition(".")[2] for error in errors} == {"fragile"}
    assert [e.message for e in errors] == ["ValueError: no good", "it was cancelled from inside"]


class UnwritableError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize(
    "error",
    [SystemExit(2), StopIteration(), UnwritableError(), BaseException("odd")],
    ids=lambda error: type(error).__name__,
)
def test_any_exception_of_a_handler_is_reported_once(kind, error):
    @virtual_time
    async def run():
        bus, emitted, got = EventBus(), [], []
        bus.tap(emitted.append)

        def plain(event: UserTranscriptEvent):
            if event.text == "bad":
                raise error
            got.append(event.text)

        async def coroutine(event: UserTranscriptEvent):
            plain(event)

        bus.subscribe(plain if kind == "plain" else coroutine)
        async with running(bus):
            bus.emit(text("bad"))
            bus.emit(text("good"))
        assert got == ["good"]
        (failure,) = [event for event in emitted if isinstance(event, ErrorEvent)]
        assert type(error).__name__ in failure.message

    run()


async def test_a_plain_handler_that_blocks_does_not_stop_the_loop():
    bus, got, threads = EventBus(), [], set()
    release = threading.Event()

    @bus.subscribe
    def block(event: UserTranscriptEvent) -> None:
        release.wait(10)
        threads.add(threading.current_thread())
        got.append(event.text)

    async with running(bus):
        for letter in "abc":
            bus.emit(text(letter))
        await asyncio.sleep(0.05)  # It would not come back if the handler ran here.
        assert got == []
        release.set()
    assert got == ["a", "b", "c"]
    assert threading.main_thread() not in threads


async def test_the_end_does_not_wait_for_a_plain_handler_that_hangs():
    bus, release = EventBus(), threading.Event()

    @bus.subscribe
    def hang(event: UserTranscriptEvent) -> None:
        release.wait(10)

    began = asyncio.get_running_loop().time()
    async with running(bus):
        bus.emit(text("a"))
    try:
        assert asyncio.get_running_loop().time() - began < 5
    finally:
        release.set()


@virtual_time
async def test_a_tap_that_raises_is_reported_once_and_stops_nothing():
    bus, emitted = EventBus(), []

    def broken(event):
        raise OSError(28, "No space left on device")

    bus.tap(broken)
    bus.tap(emitted.append)
    for letter in "ab":
        bus.emit(text(letter))
    assert [e.text for e in emitted if isinstance(e, UserTranscriptEvent)] == ["a", "b"]
    (failure,) = [e for e in emitted if isinstance(e, ErrorEvent)]
    assert "No space left" in failure.message


@virtual_time
async def test_partial_functions_may_be_handlers():
    bus, got = EventBus(), []

    def collect(event: UserTranscriptEvent, where: list[str]) -> None:
        where.append(event.text)

    async def collect_later(event: UserTranscriptEvent, where: list[str]) -> None:
        where.append(event.text + " later")

    bus.subscribe(partial(collect, where=got))
    bus.subscribe(partial(collect_later, where=got))
    async with running(bus):
        bus.emit(text("a"))
    assert sorted(got) == ["a", "a later"]


@virtual_time
async def test_waiting_events_are_bounded_and_the_oldest_is_dropped():
    bus, got = EventBus(), []

    @bus.subscribe
    def collect(event: UserTranscriptEvent):
        got.append(int(event.text))

    for number in range(QUEUE_LIMIT + 10):
        bus.emit(text(str(number)))
    assert bus._subscriptions[0].dropped == 10
    async with running(bus):
        pass
    assert got == [*range(10, QUEUE_LIMIT + 10)]


@virtual_time
async def test_the_end_does_not_wait_for_a_handler_that_hangs():
    bus = EventBus()

    @bus.subscribe
    async def hang(event: UserTranscriptEvent):
        await asyncio.Event().wait()

    began = asyncio.get_running_loop().time()
    async with running(bus):
        bus.emit(text("a"))
    assert asyncio.get_running_loop().time() - began <= 0.31
    assert len(asyncio.all_tasks()) == 1


@virtual_time
async def test_a_handler_may_come_late_and_leave_early():
    bus, got, tapped = EventBus(), [], []
    bus.tap(tapped.append)

    def collect(event: UserTranscriptEvent):
        got.append(event.text)

    async with running(bus):
        bus.emit(text("before"))
        assert bus.subscribe(collect) is collect
        bus.emit(text("during"))
        await asyncio.sleep(0.01)
        bus.unsubscribe(collect)
        bus.emit(text("after"))
    assert got == ["during"]
    assert [e.text for e in tapped] == ["before", "during", "after"]


@virtual_time
async def test_events_sent_before_the_start_wait_for_it():
    bus, got = EventBus(), []

    @bus.subscribe
    def collect(event: UserTranscriptEvent):
        got.append(event.text)

    bus.emit(text("early"))
    await bus.drain()
    async with running(bus):
        pass
    bus.emit(text("between"))
    async with running(bus):
        pass
    assert got == ["early", "between"]


@virtual_time
async def test_a_handler_may_end_its_own_delivery():
    bus, got = EventBus(), []

    @bus.subscribe
    async def last(event: UserTranscriptEvent):
        await bus.drain()
        got.append(event.text)

    async with running(bus):
        bus.emit(text("a"))
    assert got == ["a"]


@virtual_time
async def test_a_plain_handler_that_needs_the_event_loop_is_told_what_to_write():
    bus, emitted = EventBus(), []
    bus.tap(emitted.append)

    @bus.subscribe
    def begin(event: UserTranscriptEvent) -> None:
        asyncio.get_running_loop()

    async with running(bus):
        bus.emit(text("a"))
    assert (
        emitted[1].message == "RuntimeError: no running event loop: make this handler 'async def'"
    )
