"""`Agent`: run one conversation between a person on an edge and a model."""

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
from typing import TYPE_CHECKING, Concatenate, NoReturn, Self
from uuid import uuid4

from duologue._user_code import FailureReports, describe, run_contained, text_of
from duologue.agent._arguments import check_arguments
from duologue.agent.barge_in import BargeIn, BargeInPolicy
from duologue.agent.call_recorder import CallRecorder, GuardedRecorder
from duologue.agent.conversation import Conversation
from duologue.agent.instructions import load_instructions
from duologue.agent.processors import Processor
from duologue.agent.stats import AgentStats
from duologue.audio import FRAME_MS, AudioFrame
from duologue.clock import Clock, LoopClock
from duologue.edges.protocol import Edge, EdgeStats, EventSink, MeasuredEdge, WaitingEdge
from duologue.errors import (
    ConfigError,
    DuologueError,
    ErrorKind,
    SessionClosedError,
    SessionError,
    UnsupportedError,
)
from duologue.events.bus import EventBus
from duologue.events.events import ErrorEvent, RealtimeDisconnectedEvent
from duologue.events.json import event_without_setup
from duologue.items import AgentItem, UserItem, replace_surrogates
from duologue.pipeline.interfaces import (
    LLM,
    STT,
    TTS,
    SpokenText,
    StoppedText,
    StreamingSTT,
    StreamingTTS,
    SynthesisOutput,
    TTSConnection,
    TurnDetector,
)
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import Truncate
from duologue.realtime.realtime import Realtime
from duologue.ticker import Subscription, ticker_for
from duologue.tools import ToolRegistry
from duologue.vad.vad import VAD

if TYPE_CHECKING:
    from duologue.agent.playout import Playout
    from duologue.agent.session import AgentSession
    from duologue.agent.speech import Speech

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 0.6
"""Seconds that the edge and the model together may take to stop (contract C8)."""


THREAD_TIMEOUT_S = 10.0
"""Seconds that another thread waits for the event loop to run its call."""


@dataclass(frozen=True, slots=True)
class User:
    """A participant: the agent itself, or the person.

    Without an ``id``, the id is ``agent`` or ``person``.
    """

    name: str = "Agent"
    id: str = ""


@dataclass(slots=True)
class _LiveSession:
    """The state of a joined agent: its session, tasks and failure."""

    session: AgentSession
    tasks: asyncio.TaskGroup
    failures: FailureReports
    recorder: GuardedRecorder
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    thread: int = field(default_factory=threading.get_ident)
    edge_task: asyncio.Task[None] | None = None
    model_task: asyncio.Task[None] | None = None
    ticks: Subscription | None = None
    say_tasks: set[asyncio.Task[None]] = field(default_factory=set)
    voice: TTSConnection | None = None
    """The agent's own voice, if it keeps a connection."""
    person_joined: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Exception | None = None

    def tick(self, now: float) -> None:
        """Play what is due; if the edge raises, only that frame is lost."""
        try:
            self.session.tick(now)
        except Exception as error:  # noqa: BLE001 - reported
            self.failures.report("edge", error)


class _JoinContext(AbstractAsyncContextManager["Agent"]):
    """The context manager that `Agent.join` returns; its errors explain how to use it."""

    def __init__(self, block: AbstractAsyncContextManager[Agent]) -> None:
        self._context = block

    async def __aenter__(self) -> Agent:
        return await self._context.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._context.__aexit__(kind, error, traceback)

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
            return future.result(THREAD_TIMEOUT_S)
        except TimeoutError:
            if not future.cancel():
                return future.result()
            name = method.__name__
            raise RuntimeError(
                f"the event loop did not run {name}() within {THREAD_TIMEOUT_S:g} s: it must not "
                f"wait for this thread, or call it by agent.call_soon_threadsafe(agent.{name}, ...)"
            ) from None

    return call


class Agent:
    """Run one conversation between a person and a model.

    An agent joins once. Any thread may call its methods that are not coroutines.

    Args:
        edge: Where the person is: a microphone, a browser, a WAV file.
        llm: A `Realtime`, or a text `LLM`, which becomes a `Pipeline` with ``stt``, ``tts``,
            ``turn_detection`` and ``vad``.
        agent_user: Name and id of the agent.
        person: Name and id of the person.
        instructions: The system prompt: text, or the `Path` of a file. With a path or a ``root``,
            each ``@file.md`` in it is replaced by that file, see `load_instructions`.
        tools: Functions that the model may call, registered as `tool` does.
        processors: Inspect, change or drop audio and video on the way to the model, in order.
        stt: Speech to text, for a text ``llm``.
        tts: Text to speech, for a text ``llm``, or for a `Realtime` that answers in text
            (``output="text"``). With a `Realtime` that speaks, it speaks the text of `say`.
        turn_detection: Predicts whether the person has finished, for a text ``llm``.
        vad: Voice activity detection, for a text ``llm``.
        barge_in: How readily the person interrupts the agent.
        conversation: The history to continue, and where it is stored.
        experimental_tools: Allow tools with a model that does not call them reliably.
        root: The folder of files that ``instructions`` mention.
        recorder: Records the conversation, such as `duologue.observe.Recorder`.
        clock: Time of everything in the conversation; tests pass one of their own.

    Raises:
        ConfigError: For a combination of arguments that cannot work.
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
        stt: STT | StreamingSTT | None = None,
        tts: TTS | StreamingTTS | None = None,
        turn_detection: TurnDetector | None = None,
        vad: VAD | None = None,
        barge_in: BargeInPolicy | None = None,
        conversation: Conversation | None = None,
        experimental_tools: bool = False,
        root: Path | None = None,
        recorder: CallRecorder | None = None,
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
        self.agent_user = _with_default_id(agent_user or User(), "agent")
        self.person = _with_default_id(person or User("Person"), "person")
        self._root = root
        self.instructions = load_instructions(instructions, root)
        self._clock: Clock = clock or LoopClock()
        self._clock_zero_unix: float | None = None
        """The Unix time when the clock was at 0 s."""
        self.events = EventBus(self._unix_time)
        if isinstance(edge, EventSink):
            show = edge.send_event
            self.events.tap(lambda event: show(event_without_setup(event)))
        # Not `or`: an empty conversation is falsy, and its store would be lost.
        self.conversation = Conversation() if conversation is None else conversation
        self.tools = ToolRegistry()
        self.tool = self.tools.add
        """Register a function, plain or ``async``, as a tool: a decorator, bare or with options."""
        for function in tools:
            self.tools.add(function)
        speaks = isinstance(llm, Realtime) and llm.capabilities.output == "audio"
        self.llm = self._build_realtime(llm, stt, tts, turn_detection, vad)
        self._tts = tts if speaks else None
        """Speaks what `say` is given, for a model that speaks by itself."""
        self._processors = tuple(processors)
        self._barge_in = barge_in or BargeInPolicy()
        self._recorder = recorder
        self._experimental_tools = experimental_tools
        self._live: _LiveSession | None = None
        self._playout: Playout | None = None
        self._joined = False

    @property
    def recorder(self) -> CallRecorder | None:
        """What records the conversation; may be set until the agent joins."""
        return self._recorder

    @recorder.setter
    def recorder(self, recorder: CallRecorder | None) -> None:
        if self._joined:
            raise ConfigError("a conversation is recorded from its beginning: set it before join()")
        self._recorder = recorder

    def join(self) -> AbstractAsyncContextManager[Agent]:
        """Connect the person and the model; the conversation lasts as long as the block.

        Leaving the block closes everything within a second. Raises the error that kept the
        conversation from starting or that ended it: a `SessionError` of the model, or the edge's
        own error.
        """
        return _JoinContext(self._join())

    @asynccontextmanager
    async def _join(self) -> AsyncGenerator[Agent]:
        if self._joined:
            raise ConfigError("an Agent joins once: make a new one for the next conversation")
        self._joined = True
        try:
            await self.conversation.load()
            setup = self._build_setup()
        except BaseException:
            # Nothing has started, so the caller can correct the cause and join again.
            self._joined = False
            raise
        live: _LiveSession | None = None
        failure: BaseException | None = None
        started = False
        try:
            async with asyncio.TaskGroup() as tasks:
                failures = FailureReports(
                    self._clock.now,
                    lambda source, message: self.events.emit(ErrorEvent(source, message)),
                )
                recorder = GuardedRecorder(
                    self._recorder, functools.partial(self.events.report, "recorder")
                )
                live = _LiveSession(self._build_session(tasks, recorder), tasks, failures, recorder)
                self._live = live
                self._playout = live.session.playout
                try:
                    await self._start(live, setup)
                    started = True
                    yield self
                except BaseException as error:  # noqa: BLE001 - raised again outside of the group
                    failure = error
                await self._stop(live, failure)
        except BaseExceptionGroup as group:
            failure = _first_error(group)
        live_failure = live.failure if live is not None else None
        specific = failure is not None and not isinstance(failure, SessionClosedError)
        if live_failure is not None and not specific:
            failure = live_failure
        if isinstance(failure, DuologueError) and (not started or failure is live_failure):
            # The error text says what to do; a traceback through our own tasks would add 40 lines.
            log.debug("the conversation ended", exc_info=failure)
            raise failure.with_traceback(None) from None
        if failure is not None:
            raise failure

    @_on_loop
    def simple_response(self, text: str, interrupt: bool = True) -> Speech:
        """Send ``text`` to the model as if the person had written it, and request a reply.

        Args:
            text: What the model replies to.
            interrupt: Interrupt the agent first if it is speaking or about to speak.

        Returns:
            The reply's speech; await it until the person has heard it.

        Raises:
            SessionClosedError: If the agent has not joined.
            ConfigError: If ``text`` is not a str.
        """
        live = self._require_live()
        _check_text("simple_response", text)
        if interrupt and not live.session.is_idle:
            self.llm.interrupt(keep_results=True)
        if self.llm.connected:
            live.session.send_snapshot()
        item = UserItem(uuid4().hex, replace_surrogates(text), self.person.id, spoken=False)
        self.llm.add_item(item)
        self.conversation.put(item)
        from duologue.agent.speech import Speech

        speech = Speech(self.llm.epoch)
        self._request_reply(speech, lambda request_id: self.llm.request_reply(request_id))
        return speech

    @_on_loop
    def say(self, text: str, *, interrupt: bool = False, interruptible: bool = True) -> Speech:
        """Speak exactly ``text``, after the current speech.

        The text enters the history as far as the person heard it.

        Args:
            text: What to speak.
            interrupt: Interrupt the agent first if it is speaking or about to speak.
            interruptible: If False, the person's voice does not stop this speech.

        Returns:
            The speech; await it until the person has heard it.

        Raises:
            SessionClosedError: If the agent has not joined.
            UnsupportedError: If the model cannot speak a given text.
            ConfigError: If ``text`` is empty or not a str.
        """
        live = self._require_live()
        _check_text("say", text)
        if not text.strip():
            raise ConfigError("say needs some text")
        text = replace_surrogates(text)
        if interrupt and not live.session.is_idle:
            self.llm.interrupt(keep_results=True)
        from duologue.agent.speech import Speech

        speech = Speech(self.llm.epoch, interruptible=interruptible)
        if self._tts is not None:
            live.session.playout.begin(speech)
            task = live.tasks.create_task(
                self._speak_with_tts(self._tts, live, speech, text), name="say"
            )
            live.say_tasks.add(task)
            task.add_done_callback(live.say_tasks.discard)
        else:
            self._request_reply(
                speech,
                lambda request_id: self.llm.say(request_id, text, interruptible=interruptible),
            )
        return speech

    async def digits(
        self,
        *,
        max: int = 1,  # noqa: A002 - as others call it
        end: str = "#",
        within: float = 5.0,
    ) -> str:
        """Return the keys that the person presses on their telephone.

        Unread keys of the last ten seconds count too, because callers who know a menu
        do not wait for it. Each key is also a `DigitEvent`.

        Args:
            max: Most keys to wait for.
            end: Keys that end the input and are not part of it; "" for none.
            within: Seconds to wait for each key.

        Returns:
            The keys, such as "1234"; "" if none came in time.

        Raises:
            SessionClosedError: If the agent has not joined.
            ConfigError: If an argument can't work, or another call is waiting.
        """
        return await self._require_live().session.digits.collect(max, end, within)

    @_on_loop
    def interrupt(self) -> int:
        """Stop everything that the agent is saying or is about to say; return the new epoch.

        This also stops speeches that are not ``interruptible``, unlike the person's voice.
        """
        self._require_live()
        return self.llm.interrupt()

    @_on_loop
    def update_instructions(self, instructions: str | Path) -> None:
        """Replace the instructions from the next reply on; raises what `Realtime` raises."""
        self._require_live()
        text = load_instructions(instructions, self._root)
        self.llm.update_instructions(text)
        self.instructions = text

    @_on_loop
    def update_tools(self) -> None:
        """Send the registered tools to the model; raises what `Realtime` raises."""
        self._require_live()
        self.llm.update_tools(self.tools.specs())

    def stats(self) -> AgentStats:
        """Return the counters of the conversation so far: what was lost, dropped or stale.

        They are 0 before `join`, and stay after the conversation.
        """
        session = self.llm.stats()
        connection = session.connection
        playout = self._playout
        return AgentStats(
            connections=session.connections,
            reconnects=session.reconnects,
            lost_input_s=session.lost_input_s,
            dropped_input_s=connection.dropped_input_s,
            dropped_images=connection.dropped_images,
            dropped_reply_s=connection.dropped_reply_s,
            stale_outputs=session.stale_outputs,
            unknown_messages=connection.unknown_messages,
            malformed_messages=connection.malformed_messages,
            repeated_messages=connection.repeated_messages,
            stale_audio_s=playout.stale_s if playout is not None else 0.0,
            overflowed_audio_s=playout.overflowed_s if playout is not None else 0.0,
            starved_s=playout.starved_ticks * FRAME_MS / 1000 if playout is not None else 0.0,
            waiting_audio_s=playout.waiting_s if playout is not None else 0.0,
            caught_up_audio_s=playout.caught_up_s if playout is not None else 0.0,
            dropped_events=self.events.dropped,
            edge=self.edge.stats() if isinstance(self.edge, MeasuredEdge) else EdgeStats(),
        )

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: object) -> None:
        """Schedule ``callback(*args)`` on the event loop of the conversation, from any thread.

        Does not wait for the call. Raises `SessionClosedError` if the agent has not joined.
        """
        live = self._require_live(ended=True)
        try:
            live.loop.call_soon_threadsafe(callback, *args)
        except RuntimeError as error:
            raise SessionClosedError("the event loop of the conversation has ended") from error

    async def finish(self) -> None:
        """Wait until the conversation ends: the person leaves, or the session ends.

        Raises `SessionError` (or the edge's error) if that is what ended it.
        """
        live = self._require_live(ended=True)
        await live.ended.wait()
        if live.failure is not None:
            failure, live.failure = live.failure, None
            raise failure.with_traceback(None) if isinstance(failure, DuologueError) else failure

    async def close(self) -> None:
        """End the conversation now, within a second; a second call does nothing."""
        if self._live is not None:
            await self._close(self._live, None)

    async def _close(self, live: _LiveSession, failure: BaseException | None) -> None:
        live.ended.set()
        live.session.close()
        ends = [
            task for task in (live.edge_task, live.model_task, *live.say_tasks) if task is not None
        ]
        for task in ends:
            task.cancel()
        if ends:
            await asyncio.wait(ends, timeout=CLOSE_TIMEOUT_S)
        if live.session.disconnected_event is None:
            failed = isinstance(failure, Exception)
            reason = text_of(failure) if failure is not None and failed else "closed"
            live.session.disconnected(RealtimeDisconnectedEvent(reason, clean=not failed))

    def _build_realtime(
        self,
        llm: Realtime | LLM,
        stt: STT | StreamingSTT | None,
        tts: TTS | StreamingTTS | None,
        turn: TurnDetector | None,
        vad: VAD | None,
    ) -> Realtime:
        if isinstance(llm, Realtime):
            if stt or turn or vad:
                raise ConfigError(
                    "a Realtime listens by itself: leave out stt, turn_detection and vad"
                )
            if tts is not None and llm.capabilities.output == "text":
                from duologue.pipeline.reply_voice import TTSVoice

                llm.use_voice(TTSVoice(tts))
            return llm
        if stt is None or tts is None:
            raise ConfigError("a text llm needs stt=... and tts=... to listen and to speak")
        from duologue.pipeline.pipeline import Pipeline  # not needed with a `Realtime`

        return Pipeline(llm=llm, stt=stt, tts=tts, turn=turn, vad=vad)

    def _unix_time(self) -> float:
        """Return the Unix time: the wall clock's at first, then advanced by the injected clock."""
        try:
            now = self._clock.now()
        except RuntimeError:
            return time.time()  # No event loop is running, so its clock cannot be read.
        if self._clock_zero_unix is None:
            self._clock_zero_unix = time.time() - now
        return self._clock_zero_unix + now

    def _build_setup(self) -> SessionSetup:
        if self.llm.capabilities.output == "text" and not isinstance(self.edge, EventSink):
            raise ConfigError(
                f"{self.llm.capabilities.model} answers in text, which this edge can't show: give "
                "Agent a tts to speak it, or leave output='text' out"
            )
        specs = self.tools.specs()
        ability, model = self.llm.capabilities.tools, self.llm.capabilities.model
        if specs and ability == "none":
            raise UnsupportedError(f"{model} can't call tools: use another model")
        if specs and ability == "experimental" and not self._experimental_tools:
            raise UnsupportedError(
                f"{model} calls tools that nothing asked for: use another model, "
                "or Agent(experimental_tools=True)"
            )
        return SessionSetup(self.instructions, specs, self.conversation.history)

    def _build_session(self, tasks: asyncio.TaskGroup, recorder: GuardedRecorder) -> AgentSession:
        # What only a conversation needs; a server has imported it before its first call.
        from duologue.agent.session import AgentSession
        from duologue.agent.tool_runner import ToolRunner

        runner = ToolRunner(self.tools, self.llm, self.conversation, self.events.emit, self._clock)
        profile = self.llm.capabilities
        barge_in = BargeIn(
            self._barge_in,
            needs_words=profile.user_transcripts == "partial",
            voice=self.llm.voice_meter,
            follows_model=profile.speech_detection != "local",
        )
        return AgentSession(
            edge=self.edge,
            realtime=self.llm,
            barge_in=barge_in,
            conversation=self.conversation,
            tools=runner,
            processors=self._processors,
            participant=self.person.id,
            emit=self.events.emit,
            on_text=self.simple_response,
            tasks=tasks,
            clock=self._clock,
            recorder=recorder,
        )

    async def _start(self, live: _LiveSession, setup: SessionSetup) -> None:
        self.events.start(live.tasks)
        failures = live.failures
        self.conversation.begin(live.tasks, lambda error: failures.report("store", error))
        live.edge_task = live.tasks.create_task(self._run_edge(live), name="edge")
        await self.llm.prepare(setup)
        if isinstance(self.edge, WaitingEdge):
            await self._check_model(live, setup)
        await live.person_joined.wait()
        if live.ended.is_set():
            raise live.failure or SessionClosedError(
                "the person left before the conversation began"
            )
        announcement = live.recorder.begin(self, self._clock, self._unix_time())
        live.model_task = live.tasks.create_task(self._run_model(live, setup), name="model")
        await self.llm.ready()
        live.ticks = ticker_for(self._clock).subscribe(live.tick)
        if announcement and not live.ended.is_set():
            self.say(announcement, interruptible=False)

    async def _check_model(self, live: _LiveSession, setup: SessionSetup) -> None:
        """Raise if the model cannot be reached; stop checking when the person joins."""
        checking = asyncio.ensure_future(self.llm.check(setup))
        arriving = asyncio.ensure_future(live.person_joined.wait())
        both = {checking, arriving}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.wait(both)
        if not checking.cancelled():
            checking.result()

    async def _stop(self, live: _LiveSession, failure: BaseException | None) -> None:
        if live.ticks is not None:
            live.ticks.cancel()
        # Close in parallel, so that everything stays within the second.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._close(live, failure), name="close")
            tasks.create_task(live.session.tools.close(), name="close tools")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.conversation.end(), name="flush store")
            tasks.create_task(self.events.drain(), name="drain events")
            tasks.create_task(live.recorder.end(), name="end recording")
        self.events.stop()
        self._live = None

    async def _run_edge(self, live: _LiveSession) -> None:
        try:
            await self.edge.run(live.session, live.person_joined.set)
        except Exception as error:  # noqa: BLE001 - raised by finish() or by join()
            live.failure = live.failure or error
            # The caller gets the error itself; whoever follows the events gets it here.
            self.events.emit(ErrorEvent("edge", describe(error), "ended"))
        finally:
            live.ended.set()
            live.person_joined.set()

    async def _run_model(self, live: _LiveSession, setup: SessionSetup) -> None:
        try:
            await self.llm.run(setup, live.session)
        except SessionError as error:
            live.failure = live.failure or error
        finally:
            live.ended.set()

    def _request_reply(self, speech: Speech, request: Callable[[str], None]) -> None:
        request_id = uuid4().hex
        self._require_live().session.bind_speech(request_id, speech)
        try:
            request(request_id)
        except BaseException as error:
            self._require_live().session.reply_ended(request_id, None)
            raise error from None

    async def _speak_with_tts(
        self, tts: TTS | StreamingTTS, live: _LiveSession, speech: Speech, text: str
    ) -> None:
        """Speak ``text`` by the agent's own TTS, and tell the model what the person heard of it."""
        playout = live.session.playout

        def play(frame: AudioFrame) -> bool:
            """Play the next audio; return False once the speech is over."""
            if speech.clipped_at is not None:
                speech.clip(frame.duration)
            elif not playout.write(speech, speech.id, frame, speech.epoch):
                if speech.done:
                    return False
                live.session.end_overlong(speech, frame.duration)
            return True

        async def synthesize(simple: TTS) -> None:
            speech.add_text(text)
            async with aclosing(simple.synthesize(text)) as frames:
                async for frame in frames:
                    if not isinstance(frame, AudioFrame):
                        raise TypeError(f"a TTS must yield AudioFrame, not {type(frame).__name__}")
                    if not play(frame):
                        break

        try:
            if isinstance(tts, StreamingTTS):
                await self._stream_speech(tts, live, speech, text, play)
            else:
                await run_contained(synthesize(tts))
        except Exception as error:  # noqa: BLE001 - reported, and raised by `await speech`
            self.events.report("tts", error, str(getattr(error, "code", "")))
            if not isinstance(error, SessionError):
                error = SessionError(describe(error), kind=ErrorKind.RETRY)
            speech.fail_at_end(error)
        playout.end(speech)
        with suppress(SessionError):
            await speech
        if not (speech.heard_text and self.llm.connected):
            return  # While disconnected: the next connection gets it from the history.
        known = live.session.known_text(speech)
        if known is None:
            self.llm.add_item(AgentItem(speech.id, speech.heard_text, speech_id=speech.id))
        elif self.llm.capabilities.truncation == "none":
            return
        elif speech.state != "cut" and known != speech.heard_text:
            # A new connection took over during the speech, so the model knows only its beginning.
            self.llm.edit(Truncate(speech.id, speech.played_ms, speech.heard_text))

    async def _stream_speech(
        self,
        tts: StreamingTTS,
        live: _LiveSession,
        speech: Speech,
        text: str,
        play: Callable[[AudioFrame], bool],
    ) -> None:
        """Have ``text`` spoken by a voice that keeps a connection; stop when the speech is over."""
        if live.voice is None:
            live.voice = tts.connect()
            live.say_tasks.add(live.tasks.create_task(live.voice.run(), name="voice"))

        def receive(output: SynthesisOutput) -> None:
            match output:
                case AudioFrame():
                    play(output)
                case SpokenText(text=words, start=start, end=end):
                    speech.add_text(
                        words,
                        None if start is None else start / tts.rate,
                        speech.id,
                        end=None if end is None else end / tts.rate,
                    )
                case StoppedText():
                    pass  # The playout has counted what was heard.

        synthesis = live.voice.synthesize(receive, hurry=False)

        async def speak() -> None:
            await synthesis.send(text)
            synthesis.finish()
            await synthesis.wait()

        async def stop() -> None:
            with suppress(Exception):  # It is raised by `speak`, or by `await speech`.
                await speech
            synthesis.cancel()

        stopping = asyncio.ensure_future(stop())
        try:
            await run_contained(speak())
        finally:
            stopping.cancel()
            synthesis.cancel()

    def _require_live(self, *, ended: bool = False) -> _LiveSession:
        live = self._live
        if live is None or (live.ended.is_set() and not ended):
            raise SessionClosedError(
                "not in a conversation: use it inside 'async with agent.join()'"
            )
        return live


def _with_default_id(user: User, role: str) -> User:
    return User(replace_surrogates(user.name), replace_surrogates(user.id) or role)


def _first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _check_text(method: str, text: object) -> None:
    """Raise `ConfigError` unless ``text`` is a str."""
    if not isinstance(text, str):
        raise ConfigError(f"{method} needs a str, not {type(text).__name__}")
