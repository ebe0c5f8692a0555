"""The five parts of a pipeline, as protocols; anything that fits them plugs in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from duologue.audio import AudioFrame, Samples
from duologue.items import Item
from duologue.realtime.commands import ToolSpec


class TurnDetector(Protocol):
    """Says how likely it is that the person has finished."""

    rate: int
    """Hz of the audio it takes."""

    async def end_of_turn(self, audio: Samples, text: Callable[[], Awaitable[str]]) -> float:
        """Probability, 0 to 1, that the turn is over after ``audio``.

        ``await text()`` gives its transcript, which is still being made: a detector that listens
        begins with the sound.
        """
        ...


class STTStream(Protocol):
    """Transcription of one turn."""

    def push(self, frame: AudioFrame) -> None:
        """Take the next sound of the turn, at the STT's rate; no waiting."""

    async def text(self) -> str:
        """The best transcript of everything pushed so far; may be called many times."""
        ...

    async def close(self) -> None:
        """Let go of the turn."""


class STT(Protocol):
    """Speech to text."""

    rate: int
    """Hz that streams take."""

    def stream(self) -> STTStream:
        """Start on a new turn."""
        ...


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next words of the model."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """The model calls a tool; ``arguments`` is JSON text."""

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
    """A text model that streams."""

    @property
    def model(self) -> str:
        """The model's name."""
        ...

    @property
    def tools_reliable(self) -> bool:
        """Whether its tool calls can be trusted; tools are offered only then, unless asked for."""
        ...

    async def prepare(self, instructions: str, tools: Sequence[ToolSpec]) -> None:
        """Get ready for a session with these instructions (load, warm the prompt cache)."""

    def generate(
        self, instructions: str, history: Sequence[Item], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[LLMOutput]:
        """Stream the model's next turn; closing the generator stops the generation.

        Raises `SessionError` when the model fails.
        """
        ...


class TTS(Protocol):
    """Text to speech."""

    rate: int
    """Hz of the frames it makes."""

    def synthesize(self, text: str) -> AsyncGenerator[AudioFrame]:
        """Stream the sound of ``text``; closing the generator stops the synthesis."""
        ...
