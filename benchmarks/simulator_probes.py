"""What the benchmarks of `session_fidelity` read from each provider's simulator."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from conformance_targets import FIRST_HZ, RATE, STEP_HZ, TARGETS, Backend, FakePerson

from duologue.realtime.outputs import Output, UserTranscript, UserTurnEnded
from fake_edge import join_agent

__all__ = [
    "FIRST_HZ",
    "RATE",
    "SIDES",
    "STEP_HZ",
    "FakePerson",
    "Backend",
    "Side",
    "delay_words",
    "known_to",
    "meeting",
    "on_connection",
    "events_of",
    "watch_sent",
]


@dataclass(frozen=True, slots=True)
class Side:
    """One provider: its target in the conformance suite, and its messages.

    ``speech`` returns whether a message (its kind and its text) reports that the person speaks, or
    that the model was interrupted. ``rate`` is the sample rate in Hz of the audio it gets.
    ``words_beside``: it transcribes a turn while it replies to it.
    """

    subject: str
    transport: str
    signal: str
    speech: Callable[[str, str], bool]
    rate: int = 16000
    words_beside: bool = True


def _started(kind: str, _: str) -> bool:
    return kind == "input_audio_buffer.speech_started"


SIDES = {
    "openai": Side("openai-websocket", "WebSocket", "speech_started", _started, rate=24000),
    "qwen": Side("qwen", "WebSocket", "speech_started", _started),
    "gemini": Side(
        "gemini-3.8",
        "WebSocket",
        "interrupted",
        lambda kind, _: kind == "serverContent.interrupted",
    ),
    "nova": Side(
        "nova",
        "HTTP/2",
        "INTERRUPTED",
        lambda kind, text: kind == "contentEnd" and '"INTERRUPTED"' in text,
        words_beside=False,
    ),
}


_ROLES = {"Person": "user", "You": "agent"}
"""Roles in the text by which Nova gets older messages beyond its limit, in one message."""


@asynccontextmanager
async def meeting(
    side: Side,
    person: Any,
    replies: Any = (),
    transcripts: Any = (),
    *,
    words_late_s: float = 0.0,
    **options: Any,
) -> AsyncGenerator[tuple[Any, Any]]:
    """Connect an agent with a simulated provider; yield the agent and the far side.

    ``agent.recorded`` has its events. Transcripts of the person are ``words_late_s`` late.
    """
    if words_late_s and side.words_beside:
        simulator_options = {"transcription_delay": words_late_s, **options.get("simulator", {})}
        options["simulator"] = simulator_options
    async with TARGETS[side.subject](replies, transcripts, **options) as (llm, far):
        if words_late_s and not side.words_beside:
            delay_words(far.simulator, words_late_s)
        async with join_agent(llm, person) as agent:
            yield agent, far


def delay_words(simulator: Any, seconds: float) -> None:
    """Delay the backend's own transcripts by ``seconds``, so it replies only then."""
    backend = simulator._backend

    def make() -> Any:
        model = backend.make()
        begin = model.open

        def later(receive: Callable[[Output], None]) -> Callable[[Output], None]:
            loop = asyncio.get_running_loop()
            waiting: deque[Output] = deque()

            def take(output: Output) -> None:
                if isinstance(output, UserTranscript | UserTurnEnded):
                    # Timers with equal times run in any order.
                    waiting.append(output)
                    loop.call_later(seconds, lambda: receive(waiting.popleft()))
                else:
                    receive(output)

            return take

        def opened(setup: Any) -> Any:
            connection = begin(setup)
            run = connection.run
            connection.run = lambda receive: run(later(receive))
            return connection

        model.open = opened
        return model

    simulator._backend = replace(backend, make=make)


def on_connection(simulator: Any, opened: Callable[[Callable[[], None]], None]) -> None:
    """Report every new connection with the function that kills it."""
    if hasattr(simulator, "attach"):
        attach = simulator.attach

        def attached(channel: Any, session: Any) -> None:
            attach(channel, session)
            opened(channel.cut)

        simulator.attach = attached
        return
    run_session = simulator._run_session

    async def run(stream: Any, *rest: Any) -> None:
        opened(stream.abort)
        await run_session(stream, *rest)

    simulator._run_session = run


def events_of(agent: Any, kind: type) -> list[Any]:
    """Return the events of a kind so far."""
    return [event for event in agent.recorded if isinstance(event, kind)]


def known_to(name: str, far: Any) -> list[tuple[str, str]]:
    """Return what the model knows to have been said, as (role, text)."""
    if name != "nova":
        return far.history()
    known: list[tuple[str, str]] = []
    for said in far.session.conversation:
        if said.role == "ASSISTANT":
            known.append(("agent", said.text))
            continue
        older = False
        for line in said.text.split("\n"):
            older = older or line == "[What was said before:]"
            role, _, words = line.partition(": ")
            if older and role in _ROLES:
                known.append((_ROLES[role], words))
            elif not (line.startswith("[") and line.endswith("]")):
                known.append(("user", line))
    return known


def watch_sent(session: Any, see: Callable[[str, str], None]) -> None:
    """Report every message of a simulated session when it is sent."""
    channel = session._channel
    send = channel.send

    def sent(kind: str, text: str) -> None:
        see(kind, text)
        send(kind, text)

    channel.send = sent
