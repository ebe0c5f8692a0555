"""The interfaces of a pipeline's components; any object that implements one can be used."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from duologue.audio import AudioFrame, Samples
from duologue.items import Item
from duologue.realtime.commands import ToolSpec


class TurnDetector(Protocol):
    """Estimates whether the person has finished."""

    rate: int
    """Hz of the audio that it takes."""

    async def end_of_turn(self, audio: Samples, text: Callable[[], Awaitable[str]]) -> float:
        """Return the probability, 0 to 1, that the turn is over after ``audio``.

        Args:
            audio: The end of the turn.
            text: Waits for the transcript, which is still being made: a detector that uses audio
                starts with that.
        """
        ...


class STTStream(Protocol):
    """Transcription of one turn."""

    def push(self, frame: AudioFrame) -> None:
        """Add audio of the turn, at the STT's rate. Must not block."""

    async def text(self) -> str:
        """Return the best transcript of all the audio so far; may be called many times."""
        ...

    async def close(self) -> None:
        """Release the turn."""


class STT(Protocol):
    """Speech to text."""

    rate: int
    """Hz of the audio that streams take."""

    def stream(self) -> STTStream:
        """Return a stream for a new turn."""
        ...


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the model's text."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A tool call of the model; ``arguments`` is JSON text."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one generation."""

    input: int
    output: int


type LLMOutput = TextDelta | ToolRequest | TokenUsage


class LLM(Protocol):
    """A language model that streams its output."""

    @property
    def model(self) -> str:
        """The model's name."""
        ...

    @property
    def tools_reliable(self) -> bool:
        """Whether its tool calls can be trusted; otherwise tools are offered only on request."""
        ...

    async def prepare(self, instructions: str, tools: Sequence[ToolSpec]) -> None:
        """Prepare for a session with these instructions (load, fill the prompt cache)."""

    def generate(
        self, instructions: str, history: Sequence[Item], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[LLMOutput]:
        """Stream the model's next turn; closing the generator stops the generation.

        Raises:
            SessionError: The model failed.
        """
        ...


class TTS(Protocol):
    """Text to speech."""

    rate: int
    """Hz of the frames that it makes."""

    def synthesize(self, text: str) -> AsyncGenerator[AudioFrame]:
        """Stream the audio of ``text``; closing the generator stops the synthesis."""
        ...
