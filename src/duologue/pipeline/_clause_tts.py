"""A simple `TTS` as a `TTSConnection`: each clause of a reply is synthesised alone."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import aclosing

from duologue.audio import AudioFrame
from duologue.pipeline._clause_splitter import ClauseSplitter
from duologue.pipeline.interfaces import (
    TTS,
    SpokenText,
    StreamingTTS,
    Synthesis,
    SynthesisOutput,
    TTSConnection,
)

MAX_WAITING_CLAUSES = 32
"""Clauses that may wait to be synthesised; beyond this `Synthesis.send` waits."""


def connect_voice(tts: TTS | StreamingTTS) -> TTSConnection:
    """Return the voice of a new conversation, whichever kind ``tts`` is."""
    return tts.connect() if isinstance(tts, StreamingTTS) else ClauseTTS(tts)


class ClauseTTS:
    """The voice of a conversation that a simple ``tts`` makes."""

    def __init__(self, tts: TTS) -> None:
        self._tts = tts

    async def run(self) -> None:
        """Do nothing: there is no connection."""

    def synthesize(
        self, receive: Callable[[SynthesisOutput], None], *, hurry: bool = True
    ) -> Synthesis:
        """Start a reply; see `TTSConnection.synthesize`."""
        return ClauseSynthesis(self._tts, receive, hurry=hurry)


class ClauseSynthesis:
    """One reply, which is synthesised inside of `wait`."""

    def __init__(
        self, tts: TTS, receive: Callable[[SynthesisOutput], None], *, hurry: bool
    ) -> None:
        self._tts = tts
        self._receive = receive
        self._splitter = ClauseSplitter(hurry=hurry)
        self._clauses: deque[str] = deque()
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._finished = False
        self._samples = 0

    async def send(self, text: str) -> None:
        """Add text; wait while too many clauses are waiting."""
        self._add(self._splitter.push(text))
        while len(self._clauses) > MAX_WAITING_CLAUSES and not self._finished:
            self._has_room.clear()
            await self._has_room.wait()

    def flush(self) -> None:
        """Make a clause of what is left."""
        self._add(self._splitter.flush())

    def finish(self) -> None:
        """End the text."""
        self._add(self._splitter.flush())
        self._finished = True
        self._changed.set()

    def cancel(self, played: int | None = None) -> None:
        """Drop the clauses that wait; cancelling `wait` stops the synthesis."""
        del played
        self._clauses.clear()
        self._finished = True
        self._changed.set()
        self._has_room.set()

    async def wait(self) -> None:
        """Synthesise until the text has ended."""
        while True:
            while self._clauses:
                clause = self._clauses.popleft()
                self._has_room.set()
                await self._speak(clause)
            if self._finished:
                return
            self._changed.clear()
            await self._changed.wait()

    async def _speak(self, clause: str) -> None:
        self._receive(SpokenText(clause, self._samples))
        async with aclosing(self._tts.synthesize(clause.strip())) as frames:
            async for frame in frames:
                if not isinstance(frame, AudioFrame):
                    raise TypeError(f"a TTS must yield AudioFrame, not {type(frame).__name__}")
                self._samples += len(frame)
                self._receive(frame)

    def _add(self, clauses: Sequence[str]) -> None:
        if clauses:
            self._clauses.extend(clauses)
            self._changed.set()
