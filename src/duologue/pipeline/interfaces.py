"""The interfaces of a pipeline's components; any object that implements one can be used.

STT and TTS come in two kinds. `STT` and `TTS` are simple: a turn is transcribed alone, a clause is
synthesised alone. `StreamingSTT` and `StreamingTTS` keep a connection to a service for the whole
conversation: audio and text go in as they come, and the service tells where turns end and when each
word is spoken. A pipeline takes either kind of each.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

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
class TimedWord:
    """A word of a transcript, in seconds of the audio pushed so far."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class TurnStarted:
    """The person began to speak, ``at`` seconds of the audio pushed, if the service tells."""

    turn: int
    at: float | None = None


@dataclass(frozen=True, slots=True)
class TurnUpdated:
    """The transcript of the whole turn so far; ``final`` if later audio won't change it."""

    turn: int
    text: str
    final: bool = False
    words: Sequence[TimedWord] = ()


@dataclass(frozen=True, slots=True)
class TurnMayEnd:
    """The turn may be over; `TurnResumed` or `TurnEnded` follows."""

    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class TurnResumed:
    """The turn that might have been over continues."""

    turn: int


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """The turn is over, ``at`` seconds of the audio pushed, if the service tells."""

    turn: int
    text: str
    at: float | None = None
    words: Sequence[TimedWord] = ()


@dataclass(frozen=True, slots=True)
class AudioLost:
    """An outage was longer than the audio that is kept: ``seconds`` were not transcribed."""

    seconds: float


type RecognitionEvent = TurnStarted | TurnUpdated | TurnMayEnd | TurnResumed | TurnEnded | AudioLost
"""What a streaming recogniser reports. Turns are numbered from 0, also over new connections."""


class STTConnection(Protocol):
    """The transcription of one conversation, which outlives its connections to the service."""

    @property
    def catching_up(self) -> bool:
        """Whether transcripts are late, because a connection was lost: then they are awaited."""
        ...

    async def run(self, receive: Callable[[RecognitionEvent], None]) -> None:
        """Connect, and report events until cancelled.

        Raises:
            SessionError: The service can't be used any more.
        """

    def push(self, frame: AudioFrame) -> None:
        """Add the next audio at the STT's rate, silence included. Must not block."""

    def settle(self) -> None:
        """Ask for a final transcript of the turn so far, because the person pauses."""

    def end_turn(self) -> None:
        """End the turn, because the pipeline has decided so; `TurnEnded` follows."""


@runtime_checkable
class StreamingSTT(Protocol):
    """Speech to text over a connection that lasts as long as the conversation."""

    rate: int
    """Hz of the audio that it takes."""
    turns: Literal["service", "local"]
    """Who finds the turns: the service, by its events, or the pipeline's VAD and turn detector."""

    def connect(self) -> STTConnection:
        """Return the transcription of a new conversation; it connects when it is run."""
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
    """Tokens of one generation.

    ``cached`` of ``input`` were read from a cache of the service; ``reasoning`` of ``output`` were
    thoughts.
    """

    input: int
    output: int
    cached: int = 0
    reasoning: int = 0


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


@runtime_checkable
class PrefillingLLM(LLM, Protocol):
    """An `LLM` that keeps prompts cached, and can read one before the person has finished."""

    async def prefill(
        self, instructions: str, history: Sequence[Item], tools: Sequence[ToolSpec]
    ) -> None:
        """Read the beginning of a prompt, which the next `generate` continues.

        Called while the person speaks, one call at a time; `generate` cancels it.

        Args:
            instructions: The instructions of the session.
            history: The conversation; its last item may be the first words of the user turn.
            tools: The tools of the session.
        """
        ...


class TTS(Protocol):
    """Text to speech."""

    rate: int
    """Hz of the frames that it makes."""

    def synthesize(self, text: str) -> AsyncGenerator[AudioFrame]:
        """Stream the audio of ``text``; closing the generator stops the synthesis."""
        ...


@dataclass(frozen=True, slots=True)
class SpokenText:
    """The next text of a reply as it was sent, spaces included, and where it is spoken.

    All texts of a reply joined are the whole text that was sent. ``start`` and ``end`` are samples
    of the reply's audio. ``end`` is where the last word ends, so that a pause behind it is not
    counted as spoken; None: where the next text begins. A service without times gives no ``start``.
    """

    text: str
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, slots=True)
class StoppedText:
    """What was spoken of a cancelled reply, by the service's own account."""

    text: str


type SynthesisOutput = AudioFrame | SpokenText | StoppedText


class Synthesis(Protocol):
    """The synthesis of one reply: text goes in as the model writes it.

    It ends with the last audio after `finish`, or with `cancel`.
    """

    async def send(self, text: str) -> None:
        """Add text as it comes, spaces included; wait while it is too far ahead of the audio."""

    def flush(self) -> None:
        """Have all text so far spoken now; more may follow, also much later."""

    def finish(self) -> None:
        """End the text."""

    async def wait(self) -> None:
        """Wait until all audio was made, or it was cancelled.

        Raises:
            SessionError: The service failed, and a new connection did not help.
        """

    def cancel(self, played: int | None = None) -> None:
        """Stop at once: of its outputs only `StoppedText` may follow.

        Harmless when it is over. ``played`` is how many samples the person heard.
        """


class TTSConnection(Protocol):
    """The voice of one conversation, which outlives its connections to the service."""

    async def run(self) -> None:
        """Connect, and keep the connection until cancelled.

        Raises:
            SessionError: The service can't be used any more.
        """

    def synthesize(
        self, receive: Callable[[SynthesisOutput], None], *, hurry: bool = True
    ) -> Synthesis:
        """Start a reply, whose outputs ``receive`` gets in order.

        Several may live: one is heard while the next is prepared. With ``hurry`` the first audio
        should come soon, because the person waits for it.
        """
        ...


@runtime_checkable
class StreamingTTS(Protocol):
    """Text to speech over a connection that lasts as long as the conversation."""

    rate: int
    """Hz of the frames that it makes."""

    def connect(self) -> TTSConnection:
        """Return the voice of a new conversation; it connects when it is run."""
        ...
