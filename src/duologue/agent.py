"""`Agent`: conducts one conversation between a person on an edge and a model."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Concatenate, NoReturn, Self
from uuid import uuid4

from duologue.agent_arguments import check_arguments
from duologue.audio import AudioFrame
from duologue.barge_in import BargeIn, BargeInPolicy
from duologue.call import Call
from duologue.clock import Clock, LoopClock
from duologue.conversation import Conversation
from duologue.edges.edge import Edge, EventSink, WaitingEdge
from duologue.event_bus import EventBus
from duologue.event_json import event_to_json
from duologue.events import ErrorEvent, RealtimeDisconnectedEvent
from duologue.instructions import load_instructions
from duologue.items import AgentItem, UserItem, sendable
from duologue.pipeline.parts import LLM, STT, TTS, VAD, TurnDetector
from duologue.pipeline.pipeline import Pipeline
from duologue.processors import Processor
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import Truncate
from duologue.realtime.errors import (
    ConfigError,
    DuologueError,
    ErrorKind,
    SessionClosedError,
    SessionError,
    UnsupportedError,
)
from duologue.realtime.session import Realtime
from duologue.speech import Speech
from duologue.ticker import Subscription, ticker_for
from duologue.tool_runner import ToolRunner
from duologue.tools import ToolRegistry
from duologue.user_code import FailureReports, contained, describe, text_of

log = logging.getLogger(__name__)

CLOSE_S = 0.6
"""What the edge and the model together may take to end, in seconds (contract C8)."""


THREAD_S = 10.0
"""Seconds that another thread waits for the event loop to run its call."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who takes part: the agent itself, or the person.

    Without an ``id`` it is ``agent`` or ``person``.
    """

    name: str = "Agent"
    id: str = ""


@dataclass(slots=True)
class _Live:
    """A conversation under way."""

    call: Call
    tasks: asyncio.TaskGroup
    failures: FailureReports
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    thread: int = field(default_factory=threading.get_ident)
    edge: asyncio.Task[None] | None = None
    model: asyncio.Task[None] | None = None
    ticks: Subscription | None = None
    saying: set[asyncio.Task[None]] = field(default_factory=set)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Exception | None = None

    def tick(self, now: float) -> None:
        """Play what is due; if the edge raises, only that frame is lost."""
        try:
            self.call.tick(now)
        except Exception as error:  # noqa: BLE001 - reported
            self.failures.report("edge", error)


class _Joining(AbstractAsyncContextManager["Agent"]):
    """The block that `Agent.join` returns; its errors explain how to use it."""

    def __init__(self, block: AbstractAsyncContextManager[Agent]) -> None:
        self._block = block

    async def __aenter__(self) -> Agent:
        return await self._block.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._block.__aexit__(kind, error, traceback)

    def __await__(self) -> NoReturn:
        raise ConfigError(
            "join is a block that the conversation lives in: write 'async with agent.join():', "
            "and 'await agent.finish()' inside of it"
        )

    def __enter__(self) -> NoReturn:
        raise ConfigError("join must be used as 'async with agent.join():', not 'with'")

    def __exit__(self, *_: object) -> None:
        """Never called, because `__enter__` raises."""


def _on_loop[**P, T](
    method: Callable[Concatenate[Agent, P], T],
) -> Callable[Concatenate[Agent, P], T]:
    """Make a method callable from any thread: the event loop runs it, and the caller waits."""

    @functools.wraps(method)
    def call(self: Agent, /, *args: P.args, **kwargs: P.kwargs) -> T:
        live = self._live
        if live is None or live.thread == threading.get_ident():
            return method(self, *args, **kwargs)
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(method(self, *args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - raised where it was called
                future.set_exception(error)

        self.call_soon_threadsafe(run)
        try:
            return future.result(THREAD_S)
        except TimeoutError:
            if not future.cancel():
                return future.result()
            name = method.__name__
            raise RuntimeError(
                f"the event loop did not run {name}() within {THREAD_S:g} s: it must not wait "
                f"for this thread, or call it by agent.call_soon_threadsafe(agent.{name}, ...)"
            ) from None

    return call


class Agent:
    """Conducts one conversation.

    ``llm`` is a `Realtime`, or a text `LLM` that becomes a `Pipeline` with ``stt``, ``tts``,
    ``turn_detection`` and ``vad``. With a `Realtime`, ``tts`` (if given) speaks what `say` says.
    ``instructions`` may be a `Path`; with one, or with ``root``, ``@file.md`` in them pulls in a
    file, see `load_instructions`. ``tools`` are functions that the model may call, as with `tool`.
    Tools that a model does not call reliably need ``experimental_tools=True``.

    Raises `ConfigError` for a combination that can't work. An agent joins once. Its methods that
    are no coroutines may be called from any thread.
    """

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        """Reject arguments by position with an error that says what to write."""
        del kwargs
        if args:
            raise ConfigError("Agent arguments must be given by name: Agent(edge=..., llm=...)")
        return super().__new__(cls)

    def __init__(
        self,
        *,
        edge: Edge,
        llm: Realtime | LLM,
        agent_user: User | None = None,
        person: User | None = None,
        instructions: str | Path = "",
        tools: Sequence[Callable[..., object]] = (),
        processors: Sequence[Processor] = (),
        stt: STT | None = None,
        tts: TTS | None = None,
        turn_detection: TurnDetector | None = None,
        vad: VAD | None = None,
        barge_in: BargeInPolicy | None = None,
        conversation: Conversation | None = None,
        experimental_tools: bool = False,
        root: Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        check_arguments(
            edge=edge,
            llm=llm,
            stt=stt,
            tts=tts,
            turn_detection=turn_detection,
            vad=vad,
            tools=tools,
            processors=processors,
            conversation=conversation,
            barge_in=barge_in,
            agent_user=agent_user,
            person=person,
        )
        self.edge = edge
        self.agent_user = _named(agent_user or User(), "agent")
        self.person = _named(person or User("Person"), "person")
        self._root = root
        self.instructions = load_instructions(instructions, root)
        self._clock: Clock = clock or LoopClock()
        self._since: float | None = None
        """Unix time at 0 s of the clock."""
        self.events = EventBus(self._unix_time)
        if isinstance(edge, EventSink):
            show = edge.send_event
            self.events.tap(lambda event: show(event_to_json(event)))
        # Not `or`: an empty conversation is falsy, and its store would be lost.
        self.conversation = Conversation() if conversation is None else conversation
        self.tools = ToolRegistry()
        self.tool = self.tools.add
        """Let the model call a function, plain or ``async``: a decorator, bare or with options."""
        for function in tools:
            self.tools.add(function)
        self.llm = self._model(llm, stt, tts, turn_detection, vad)
        self._tts = tts if isinstance(llm, Realtime) else None
        self._processors = tuple(processors)
        self._barge_in = barge_in or BargeInPolicy()
        self._experimental_tools = experimental_tools
        self._live: _Live | None = None
        self._joined = False

    def join(self) -> AbstractAsyncContextManager[Agent]:
        """Meet the person and the model; the conversation lives as long as the block.

        Raises what kept it from beginning, or made it end: `SessionError` of the model, or the
        edge's own. Leaving the block closes everything within a second.
        """
        return _Joining(self._join())

    @asynccontextmanager
    async def _join(self) -> AsyncGenerator[Agent]:
        if self._joined:
            raise ConfigError("an Agent joins once: make a new one for the next conversation")
        self._joined = True
        try:
            await self.conversation.load()
            setup = self._setup()
        except BaseException:
            self._joined = False  # It has not begun: what was wrong can be put right.
            raise
        live: _Live | None = None
        failure: BaseException | None = None
        begun = False
        try:
            async with asyncio.TaskGroup() as tasks:
                failures = FailureReports(
                    lambda source, message: self.events.emit(ErrorEvent(source, message)),
                    self._clock.now,
                )
                live = _Live(self._call(tasks), tasks, failures)
                self._live = live
                try:
                    await self._begin(live, setup)
                    begun = True
                    yield self
                except BaseException as error:  # noqa: BLE001 - raised again, outside of the group
                    failure = error
                await self._end(live, failure)
        except BaseExceptionGroup as group:
            failure = _first(group)
        live_failure = live.failure if live is not None else None
        told = failure is not None and not isinstance(failure, SessionClosedError)
        if live_failure is not None and not told:
            failure = live_failure
        if isinstance(failure, DuologueError) and (not begun or failure is live_failure):
            # Its text says what to do; a traceback through our own tasks would be 40 lines.
            log.debug("the conversation ended", exc_info=failure)
            raise failure.with_traceback(None) from None
        if failure is not None:
            raise failure

    @_on_loop
    def simple_response(self, text: str, interrupt: bool = True) -> Speech:
        """Put ``text`` to the model as if the person had written it, and have it answered.

        With ``interrupt``, whatever the agent is saying is cut first. The `Speech` may be awaited
        till it was heard. Raises `SessionClosedError` when not joined, and `ConfigError` for
        something else than a text.
        """
        live = self._check_live()
        _check_text("simple_response", text)
        if interrupt and not live.call.settled:
            self.llm.interrupt(keep_results=True)
        if self.llm.connected:
            live.call.look()
        item = UserItem(uuid4().hex, sendable(text), self.person.id, spoken=False)
        self.llm.add_item(item)
        self.conversation.put(item)
        speech = Speech(self.llm.epoch)
        self._ask(speech, lambda request_id: self.llm.request_reply(request_id))
        return speech

    @_on_loop
    def say(self, text: str, *, interrupt: bool = False, interruptible: bool = True) -> Speech:
        """Speak exactly ``text``, after what is being said.

        With ``interrupt``, what is being said is cut first.
        Enters the history as far as it was heard. ``interruptible=False``: the person's voice does
        not stop it. The `Speech` may be awaited till it was heard. Raises `SessionClosedError` when
        not joined, `UnsupportedError` for a model that can't say scripted text, and `ConfigError`
        for an empty text.
        """
        live = self._check_live()
        _check_text("say", text)
        if not text.strip():
            raise ConfigError("say needs some text")
        text = sendable(text)
        if interrupt and not live.call.settled:
            self.llm.interrupt(keep_results=True)
        speech = Speech(self.llm.epoch, interruptible=interruptible)
        if self._tts is not None:
            live.call.playout.begin(speech)
            task = live.tasks.create_task(self._speak(self._tts, live, speech, text), name="say")
            live.saying.add(task)
            task.add_done_callback(live.saying.discard)
        else:
            self._ask(
                speech,
                lambda request_id: self.llm.say(request_id, text, interruptible=interruptible),
            )
        return speech

    @_on_loop
    def interrupt(self) -> int:
        """Cut whatever the agent is saying or is about to say; returns the new epoch.

        Unlike a person's voice, it also stops what is not ``interruptible``.
        """
        self._check_live()
        return self.llm.interrupt()

    @_on_loop
    def update_instructions(self, instructions: str | Path) -> None:
        """Change who the agent is, from the next reply on; raises as `Realtime` does."""
        self._check_live()
        text = load_instructions(instructions, self._root)
        self.llm.update_instructions(text)
        self.instructions = text

    @_on_loop
    def update_tools(self) -> None:
        """Tell the model the tools as they are registered now; raises as `Realtime` does."""
        self._check_live()
        self.llm.update_tools(self.tools.specs())

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: object) -> None:
        """Make the event loop of the conversation call ``callback(*args)``; for other threads.

        Does not wait for it. Raises `SessionClosedError` when not joined.
        """
        live = self._check_live(ended=True)
        try:
            live.loop.call_soon_threadsafe(callback, *args)
        except RuntimeError as error:
            raise SessionClosedError("the event loop of the conversation has ended") from error

    async def finish(self) -> None:
        """Wait till the conversation is over: the person has left, or the session has ended.

        Raises `SessionError` (or the edge's error) if that is what ended it.
        """
        live = self._check_live(ended=True)
        await live.over.wait()
        if live.failure is not None:
            failure, live.failure = live.failure, None
            raise failure.with_traceback(None) if isinstance(failure, DuologueError) else failure

    async def close(self) -> None:
        """End the conversation now, within a second; again is harmless."""
        if self._live is not None:
            await self._close(self._live, None)

    async def _close(self, live: _Live, failure: BaseException | None) -> None:
        live.over.set()
        live.call.close()
        ends = [task for task in (live.edge, live.model, *live.saying) if task is not None]
        for task in ends:
            task.cancel()
        if ends:
            await asyncio.wait(ends, timeout=CLOSE_S)
        if live.call.disconnected_event is None:
            failed = isinstance(failure, Exception)
            reason = text_of(failure) if failure is not None and failed else "closed"
            live.call.disconnected(RealtimeDisconnectedEvent(reason, clean=not failed))

    def _model(
        self,
        llm: Realtime | LLM,
        stt: STT | None,
        tts: TTS | None,
        turn: TurnDetector | None,
        vad: VAD | None,
    ) -> Realtime:
        if isinstance(llm, Realtime):
            if stt or turn or vad:
                raise ConfigError(
                    "a Realtime hears by itself: leave out stt, turn_detection and vad"
                )
            return llm
        if stt is None or tts is None:
            raise ConfigError("a text llm needs stt=... and tts=... to hear and to speak")
        return Pipeline(llm=llm, stt=stt, tts=tts, turn=turn, vad=vad)

    def _unix_time(self) -> float:
        """Return the Unix time: of the wall clock at first, then advanced by the injected clock."""
        try:
            now = self._clock.now()
        except RuntimeError:
            return time.time()  # Outside of the event loop, whose clock it is.
        if self._since is None:
            self._since = time.time() - now
        return self._since + now

    def _setup(self) -> SessionSetup:
        specs = self.tools.specs()
        ability, model = self.llm.profile.tools, self.llm.profile.model
        if specs and ability == "none":
            raise UnsupportedError(f"{model} can't call tools: use another model")
        if specs and ability == "experimental" and not self._experimental_tools:
            raise UnsupportedError(
                f"{model} calls tools that nothing asked for: use another model, "
                "or Agent(experimental_tools=True)"
            )
        return SessionSetup(self.instructions, specs, self.conversation.history)

    def _call(self, tasks: asyncio.TaskGroup) -> Call:
        runner = ToolRunner(self.tools, self.llm, self.conversation, self.events.emit, self._clock)
        profile = self.llm.profile
        barge_in = BargeIn(
            self._barge_in,
            needs_words=profile.user_transcripts == "partial",
            voice=self.llm.voice,
            follows=profile.speech_signals != "found",
        )
        return Call(
            edge=self.edge,
            realtime=self.llm,
            barge_in=barge_in,
            conversation=self.conversation,
            tools=runner,
            processors=self._processors,
            participant=self.person.id,
            emit=self.events.emit,
            write=self.simple_response,
            tasks=tasks,
            clock=self._clock,
        )

    async def _begin(self, live: _Live, setup: SessionSetup) -> None:
        self.events.start(live.tasks)
        failures = live.failures
        self.conversation.begin(live.tasks, lambda error: failures.report("store", error))
        live.edge = live.tasks.create_task(self._run_edge(live), name="edge")
        await self.llm.prepare(setup)
        if isinstance(self.edge, WaitingEdge):
            await self._check_model(live, setup)
        await live.arrived.wait()
        if live.over.is_set():
            raise live.failure or SessionClosedError("the person left before it began")
        live.model = live.tasks.create_task(self._run_model(live, setup), name="model")
        await self.llm.ready()
        live.ticks = ticker_for(self._clock).subscribe(live.tick)

    async def _check_model(self, live: _Live, setup: SessionSetup) -> None:
        """Raise if the model can't be reached; stop checking when the person joins."""
        checking = asyncio.ensure_future(self.llm.check(setup))
        arriving = asyncio.ensure_future(live.arrived.wait())
        both = {checking, arriving}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.wait(both)
        if not checking.cancelled():
            checking.result()

    async def _end(self, live: _Live, failure: BaseException | None) -> None:
        if live.ticks is not None:
            live.ticks.cancel()
        # Side by side, so that the whole end stays within its second.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._close(live, failure), name="close")
            tasks.create_task(live.call.tools.close(), name="close tools")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.conversation.end(), name="flush store")
            tasks.create_task(self.events.drain(), name="drain events")
        self.events.stop()
        self._live = None

    async def _run_edge(self, live: _Live) -> None:
        try:
            await self.edge.run(live.call, live.arrived.set)
        except Exception as error:  # noqa: BLE001 - raised by finish() or by join()
            live.failure = live.failure or error
        finally:
            live.over.set()
            live.arrived.set()

    async def _run_model(self, live: _Live, setup: SessionSetup) -> None:
        try:
            await self.llm.run(setup, live.call)
        except SessionError as error:
            live.failure = live.failure or error
        finally:
            live.over.set()

    def _ask(self, speech: Speech, ask: Callable[[str], None]) -> None:
        request_id = uuid4().hex
        self._check_live().call.expect(request_id, speech)
        try:
            ask(request_id)
        except BaseException as error:
            self._check_live().call.reply_ended(request_id, None)
            raise error from None

    async def _speak(self, tts: TTS, live: _Live, speech: Speech, text: str) -> None:
        """Speak through the agent's own synthesiser, and tell the model what was heard of it."""
        playout = live.call.playout
        speech.add_text(text)

        async def synthesize() -> None:
            async with aclosing(tts.synthesize(text)) as frames:
                async for frame in frames:
                    if not isinstance(frame, AudioFrame):
                        raise TypeError(f"a TTS yields AudioFrame, not {type(frame).__name__}")
                    if speech.clipped_at is not None:
                        speech.clip(frame.duration)
                    elif not playout.write(speech, speech.id, frame, speech.epoch):
                        if speech.done:
                            break
                        live.call.too_long(speech, frame.duration)

        try:
            await contained(synthesize())
        except Exception as error:  # noqa: BLE001 - reported, and raised to those who await the speech
            self.events.report("tts", error, str(getattr(error, "code", "")))
            if not isinstance(error, SessionError):
                error = SessionError(describe(error), kind=ErrorKind.RETRY)
            speech.fail_at_end(error)
        playout.end(speech)
        with suppress(SessionError):
            await speech
        if not (speech.heard_text and self.llm.connected):
            return  # Without a connection, the next one has it from the history.
        known = live.call.known_words(speech)
        if known is None:
            self.llm.add_item(AgentItem(speech.id, speech.heard_text, speech_id=speech.id))
        elif speech.state != "cut" and known != speech.heard_text:
            # A new connection took over during the speech, and knows only its beginning.
            self.llm.edit(Truncate(speech.id, speech.played_ms, speech.heard_text))

    def _check_live(self, *, ended: bool = False) -> _Live:
        live = self._live
        if live is None or (live.over.is_set() and not ended):
            raise SessionClosedError(
                "not in a conversation: use it inside 'async with agent.join()'"
            )
        return live


def _named(user: User, role: str) -> User:
    return User(sendable(user.name), sendable(user.id) or role)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _check_text(method: str, text: object) -> None:
    """Raise `ConfigError` unless ``text`` is a str."""
    if not isinstance(text, str):
        raise ConfigError(f"{method} needs a str, not {type(text).__name__}")
