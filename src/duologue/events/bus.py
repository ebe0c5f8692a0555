"""The typed, ordered event bus: handlers subscribe by their annotation."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import sys
import time
import types
import typing
from collections import deque
from collections.abc import Callable

from duologue._user_code import (
    call_plain,
    describe,
    is_async,
    log_failure,
    name_of,
    routine_of,
    run_bounded,
)
from duologue.errors import ConfigError
from duologue.events import events
from duologue.events.events import ErrorEvent, Event

log = logging.getLogger(__name__)

_KNOWN: frozenset[type] = frozenset(typing.get_args(events.Event.__value__))

QUEUE_LIMIT = 4096
"""Events that may wait for one handler; beyond it the oldest is dropped and counted."""

_DRAIN_S = 0.3


class Subscription:
    """One handler and the events that wait for it, in order."""

    __slots__ = (
        "_wake",
        "dropped",
        "handler",
        "idle",
        "is_plain",
        "name",
        "queue",
        "task",
        "types",
    )

    def __init__(self, handler: Callable[..., object], kinds: frozenset[type]) -> None:
        self.handler = handler
        self.name = name_of(handler)
        self.is_plain = not is_async(handler)
        self.types = kinds
        self.queue: deque[Event] = deque()
        self.dropped = 0
        self.task: asyncio.Task[None] | None = None
        self.idle = asyncio.Event()
        self.idle.set()
        self._wake = asyncio.Event()

    def put(self, event: Event) -> None:
        """Queue an event; drop the oldest when full."""
        if len(self.queue) >= QUEUE_LIMIT:
            self.queue.popleft()
            self.dropped += 1
        self.queue.append(event)
        self.idle.clear()
        self._wake.set()

    async def get(self) -> Event:
        """Wait for the next event, and return it."""
        while not self.queue:
            self.idle.set()
            self._wake.clear()
            await self._wake.wait()
        return self.queue.popleft()


class EventBus:
    """Sends each event to the handlers that subscribed to its type.

    A handler that is slow or fails affects no other: each gets all its events, and a failure is
    logged and sent as an `ErrorEvent`. Plain handlers run in threads, one event at a time, so even
    one that blocks never delays audio. Events sent before `start` wait for it.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._subscriptions: list[Subscription] = []
        self._taps: list[Callable[[Event], None]] = []
        self._broken_taps: list[Callable[[Event], None]] = []
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def dropped(self) -> int:
        """Events dropped so far because their handler was too slow."""
        return sum(subscription.dropped for subscription in self._subscriptions)

    def subscribe[E: Event, R](self, handler: Callable[[E], R]) -> Callable[[E], R]:
        """Call ``handler(event)`` for each event of the type that its argument is annotated with.

        A type checker reports a handler of anything that is not an event. A union stands for all
        its members. Works as a decorator, on functions and coroutine functions: a plain function
        runs in a thread, a coroutine function on the event loop.

        Raises:
            ConfigError: the annotation is missing or is not an event type.
        """
        kinds = _annotated_types(handler, sys._getframe(1).f_locals)
        subscription = Subscription(handler, kinds)
        self._subscriptions.append(subscription)
        if self._tasks is not None:
            self._start(subscription, self._tasks)
        return handler

    def unsubscribe(self, handler: Callable[..., object]) -> None:
        """Send this handler nothing more, and drop the events that wait for it."""
        for subscription in self._subscriptions:
            if subscription.handler == handler:
                subscription.types = frozenset()
                subscription.queue.clear()

    def tap(self, callback: Callable[[Event], None]) -> None:
        """Call ``callback`` for every event before `emit` returns; it must not block.

        Only the first error of a callback is reported.
        """
        self._taps.append(callback)

    def report(self, source: str, error: BaseException, code: str = "") -> None:
        """Report a failure of user code: in the log, and as an `ErrorEvent`."""
        log_failure(log, source, error)
        self.emit(ErrorEvent(source, describe(error), code))

    def emit(self, event: Event) -> None:
        """Send an event, with the time as its ``at``; never block."""
        if not event.at:
            # The event is new, so nothing has read it yet.
            object.__setattr__(event, "at", self._now())
        for tap in self._taps:
            try:
                tap(event)
            except Exception as error:  # noqa: BLE001 - reported
                if tap not in self._broken_taps:
                    self._broken_taps.append(tap)
                    self.report(f"tap {name_of(tap)}", error)
        kind = type(event)
        for subscription in self._subscriptions:
            if kind in subscription.types:
                subscription.put(event)

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Start delivery, by one task for each handler in ``tasks``."""
        self._tasks = tasks
        for subscription in self._subscriptions:
            self._start(subscription, tasks)

    async def drain(self) -> None:
        """Wait until every event sent so far was handled, but not longer than 0.3 s."""
        own = asyncio.current_task()
        waiting = [s for s in self._subscriptions if s.task is not None and s.task is not own]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                for subscription in waiting:
                    await subscription.idle.wait()

    def stop(self) -> None:
        """Stop delivery; a later `start` delivers what is sent until then."""
        self._tasks = None
        for subscription in self._subscriptions:
            if subscription.task is not None:
                subscription.task.cancel()
                subscription.task = None

    def _start(self, subscription: Subscription, tasks: asyncio.TaskGroup) -> None:
        name = f"events {subscription.name}"
        subscription.task = tasks.create_task(self._deliver(subscription), name=name)

    async def _deliver(self, subscription: Subscription) -> None:
        while True:
            event = await subscription.get()
            try:
                await self._handle(subscription, event)
            except Exception as error:  # noqa: BLE001 - reported
                source = f"handler {subscription.name}"
                if isinstance(event, ErrorEvent):
                    log_failure(
                        log, source, error
                    )  # An event for the failing handler would fail again, without end.
                else:
                    self.report(source, error)

    async def _handle(self, subscription: Subscription, event: Event) -> None:
        name = f"event handler {subscription.name}"
        if subscription.is_plain:
            try:
                result = await call_plain(lambda: subscription.handler(event))
            except RuntimeError as error:
                if "no running event loop" in str(error):
                    raise RuntimeError(f"{error}: make this handler 'async def'") from error
                raise
        else:
            result = subscription.handler(event)
        if inspect.iscoroutine(result):
            await run_bounded(result, name)


def _annotated_types(handler: Callable[..., object], scope: dict[str, object]) -> frozenset[type]:
    parameters = [
        p
        for p in inspect.signature(handler).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    name = name_of(handler)
    if not parameters:
        raise ConfigError(f"{name} takes no event: give it one argument, annotated with its type")
    try:
        hints = typing.get_type_hints(routine_of(handler), localns=scope)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise ConfigError(f"{name}: {error}; annotate its argument with an event type") from error
    hint = hints.get(parameters[0].name)
    if hint is None:
        raise ConfigError(f"{name}: annotate its argument with an event type")
    kinds = _flatten(hint)
    unknown = [kind for kind in kinds if kind not in _KNOWN]
    if unknown:
        shown = getattr(unknown[0], "__name__", unknown[0])
        raise ConfigError(f"{name}: {shown} is not an event of duologue.events")
    return frozenset(typing.cast("list[type]", kinds))


def _flatten(hint: object) -> list[object]:
    if isinstance(hint, typing.TypeAliasType):
        return _flatten(hint.__value__)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [kind for part in typing.get_args(hint) for kind in _flatten(part)]
    return [hint]
