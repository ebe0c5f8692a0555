"""Hold a conversation with each of many recordings, and return a table of their turns.

    rows = await run_batch(Path("calls").glob("*.wav"), make_agent, jobs=4)

Each recording is a caller of its own, who gets an agent of their own. Events of a conversation come
in the order in which things happen, not turn by turn: a transcript may arrive after the reply has
begun, and the next turn begins while a reply is still played. `TurnCollector` assigns each event to
its turn:

* events of the person have the id of their turn;
* a speech belongs to the latest turn that was not empty when its audio began, and all events of
  that speech follow it, even when the next turn has begun;
* tools and tokens belong to the latest turn.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike, fspath

from duologue._user_code import describe
from duologue.agent.agent import Agent
from duologue.edges import wav
from duologue.errors import ConfigError
from duologue.events.events import (
    AgentTranscriptEvent,
    AgentTurnStartedEvent,
    ErrorEvent,
    Event,
    InterruptionEvent,
    RealtimeDisconnectedEvent,
    ToolStartEvent,
    TurnMetricsEvent,
    UsageEvent,
    UserTranscriptEvent,
    UserTurnEndedEvent,
    UserTurnStartedEvent,
)

type MakeFileAgent = Callable[[wav.Edge], Agent | Awaitable[Agent]]
"""Makes the agent that talks with one recording; a plain or an ``async`` function."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One turn of a conversation; times in ms are counted from the end of the person's speech.

    Attributes:
        file: The recording.
        turn: Number of the turn, from 1; 0 for what the agent says before the first, and for a
            recording without a turn.
        turns: Number of rows of this recording.
        user: Transcript of the person.
        agent: What the person heard of the reply.
        interrupted: Whether the person interrupted the reply.
        endpoint_ms: The end of the turn was decided; None if unknown, as below.
        transcript_ms: The transcript arrived.
        first_text_ms: The model's first text.
        first_audio_ms: The first audio was made.
        first_played_ms: The first audio was on its way to the person.
        tools: Number of tool calls.
        input_tokens: Tokens sent to the model.
        output_tokens: Tokens made by the model.
        warnings: What failed in this turn while the conversation went on; "" if nothing did.
        error: Why the conversation failed, in the last row of it; "" if it did not.
        model: What talked, as the options of ``duologue batch`` name it; "" from `run_batch`.
    """

    file: str
    turn: int
    turns: int = 1
    user: str = ""
    agent: str = ""
    interrupted: bool = False
    endpoint_ms: float | None = None
    transcript_ms: float | None = None
    first_text_ms: float | None = None
    first_audio_ms: float | None = None
    first_played_ms: float | None = None
    tools: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    warnings: str = ""
    error: str = ""
    model: str = ""


@dataclass(slots=True)
class _Turn:
    """What is known of a turn so far."""

    turn_id: str | None
    user: str = ""
    empty: bool = False
    agent: list[str] = field(default_factory=list)
    speeches: list[str] = field(default_factory=list)
    interrupted: bool = False
    tools: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    warnings: list[str] = field(default_factory=list)


class TurnCollector:
    """Collects the turns of one conversation from its events.

    Args:
        measured: Whether latencies mean anything, which they don't in virtual time.
    """

    def __init__(self, *, measured: bool = True) -> None:
        self._measured = measured
        self._turns = [_Turn(None)]
        self._by_speech: dict[str, _Turn] = {}
        self._metrics: dict[str, TurnMetricsEvent] = {}
        self._failure = ""

    def accept(self, event: Event) -> None:
        """Process the next event."""
        match event:
            case UserTurnStartedEvent():
                self._turn(event.turn_id)
            case UserTurnEndedEvent():
                turn = self._turn(event.turn_id)
                turn.empty = event.empty
                turn.user = event.text or turn.user
            case UserTranscriptEvent(final=True):
                self._turn(event.turn_id).user = event.text
            case AgentTurnStartedEvent():
                self._speech(event.speech_id)
            case AgentTranscriptEvent(final=True):
                if event.text:
                    self._speech(event.speech_id).agent.append(event.text)
            case InterruptionEvent(speech_id=str(speech_id)):
                self._speech(speech_id).interrupted = True
            case TurnMetricsEvent():
                self._metrics[event.speech_id] = event
            case ToolStartEvent():
                self._latest().tools += 1
            case UsageEvent():
                turn = self._latest()
                turn.input_tokens += event.total_input
                turn.output_tokens += event.total_output
            case ErrorEvent():
                self._latest().warnings.append(f"{event.source}: {event.message}")
            case RealtimeDisconnectedEvent(clean=False):
                self._failure = event.reason
            case _:
                pass

    def rows(self, file: str, error: str = "") -> list[Row]:
        """Return the rows of the conversation, at least one.

        Args:
            file: The recording.
            error: Why the conversation failed; "" if it did not, as far as its events say.
        """
        opening, *turns = self._turns
        kept = [opening] if opening.speeches else []
        kept += [turn for turn in turns if turn.speeches or not turn.empty]
        error = error or self._failure
        if not kept:
            error = error or "no turn of the person was found"
            return [Row(file=file, turn=0, warnings="; ".join(opening.warnings), error=error)]
        first = 0 if kept[0] is opening else 1
        rows = [self._row(turn, file, number, len(kept)) for number, turn in enumerate(kept, first)]
        rows[-1] = replace(rows[-1], error=error)
        return rows

    def _row(self, turn: _Turn, file: str, number: int, count: int) -> Row:
        row = Row(
            file=file,
            turn=number,
            turns=count,
            user=turn.user,
            agent=" ".join(turn.agent),
            interrupted=turn.interrupted,
            tools=turn.tools,
            input_tokens=turn.input_tokens,
            output_tokens=turn.output_tokens,
            warnings="; ".join(turn.warnings),
        )
        metrics = next((self._metrics[s] for s in turn.speeches if s in self._metrics), None)
        if metrics is None or not self._measured:
            return row
        return replace(
            row,
            endpoint_ms=metrics.endpoint_ms,
            transcript_ms=metrics.transcript_ms,
            first_text_ms=metrics.first_text_ms,
            first_audio_ms=metrics.first_audio_ms,
            first_played_ms=metrics.first_played_ms,
        )

    def _turn(self, turn_id: str) -> _Turn:
        """Return the turn with an id, which may be new."""
        for turn in reversed(self._turns):
            if turn.turn_id == turn_id:
                return turn
        self._turns.append(_Turn(turn_id))
        return self._turns[-1]

    def _speech(self, speech_id: str) -> _Turn:
        """Return the turn that a speech replies to."""
        turn = self._by_speech.get(speech_id)
        if turn is None:
            turn = self._by_speech[speech_id] = self._latest()
            turn.speeches.append(speech_id)
        return turn

    def _latest(self) -> _Turn:
        """Return the latest turn that is not known to be empty."""
        return next(turn for turn in reversed(self._turns) if not turn.empty)


async def run_batch(
    files: Iterable[str | PathLike[str]],
    make_agent: MakeFileAgent,
    *,
    jobs: int = 1,
    measured: bool = True,
    on_rows: Callable[[Sequence[Row]], None] | None = None,
) -> list[Row]:
    """Hold one conversation for each file, and return a row for each turn.

    A conversation that fails is a row with the error; the others continue. In virtual time
    (`run_virtual`) the conversations take as long as the model computes.

    Args:
        files: The recordings: WAV, FLAC, Ogg or MP3.
        make_agent: Gets the edge of a recording and returns the `Agent` that joins it.
        jobs: Conversations at once.
        measured: Whether latencies mean anything; False leaves them out, for virtual time.
        on_rows: Called with the rows of each file when it is finished. An error of it ends the run.

    Returns:
        The rows, in the order of ``files``.

    Raises:
        ConfigError: ``jobs`` is below 1.
    """
    if jobs < 1:
        raise ConfigError(f"jobs must be 1 or more, not {jobs}")
    waiting = enumerate(fspath(file) for file in files)
    finished: dict[int, list[Row]] = {}

    async def work() -> None:
        for number, file in waiting:
            finished[number] = rows = await _converse(file, make_agent, measured=measured)
            if on_rows is not None:
                on_rows(rows)

    try:
        async with asyncio.TaskGroup() as tasks:
            for number in range(jobs):
                tasks.create_task(work(), name=f"batch {number}")
    except BaseExceptionGroup as group:
        # Only `on_rows` raises, or what must end the program.
        raise group.exceptions[0] from None
    return [row for number in sorted(finished) for row in finished[number]]


async def _converse(file: str, make_agent: MakeFileAgent, *, measured: bool) -> list[Row]:
    turns = TurnCollector(measured=measured)
    try:
        edge = wav.Edge(file)
        made = make_agent(edge)
        agent = await made if inspect.isawaitable(made) else made
        if not isinstance(agent, Agent):
            raise ConfigError(f"make_agent must return an Agent, not {agent!r:.80}")
        agent.events.tap(turns.accept)
        async with agent.join():
            await agent.finish()
    except Exception as error:  # noqa: BLE001 - it becomes a row
        return turns.rows(file, describe(error))
    return turns.rows(file)
