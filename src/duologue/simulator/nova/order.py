"""What the client may send when; no clock, no sockets.

The order is that of "Input event flow" in the Amazon Nova user guides; the bounds of a history are
those that the guides and AWS' samples name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pybase64

from duologue.audio import Samples
from duologue.simulator.nova.input_events import (
    AudioInput,
    ContentEnd,
    ContentStart,
    InputEvent,
    PromptEnd,
    PromptStart,
    RefusedError,
    SessionEnd,
    SessionStart,
    TextInput,
    ToolResult,
)

NOVA_1_VOICES = frozenset(
    {
        "matthew",
        "tiffany",
        "amy",
        "lupe",
        "carlos",
        "ambre",
        "florian",
        "greta",
        "lennart",
        "beatrice",
        "lorenzo",
    }
)
NOVA_2_VOICES = (NOVA_1_VOICES - {"greta"}) | {
    "olivia",
    "tina",
    "carolina",
    "leo",
    "arjun",
    "kiara",
}

MOST_MESSAGES = 40
"""Messages of a history."""
MOST_TEXT = 200_000
"""Bytes of a text that begins no history, and of a whole history."""
MOST_CALLS = 256
"""Calls of tools that may wait for their results."""


@dataclass(frozen=True, slots=True)
class SessionSet:
    """The session is configured."""

    event: SessionStart


@dataclass(frozen=True, slots=True)
class PromptSet:
    """The prompt is configured."""

    event: PromptStart


@dataclass(frozen=True, slots=True)
class Instructed:
    """The system prompt is there."""

    text: str


@dataclass(frozen=True, slots=True)
class Remembered:
    """A message of the history."""

    role: Literal["USER", "ASSISTANT"]
    text: str


@dataclass(frozen=True, slots=True)
class Listening:
    """The sound begins, at ``rate`` Hz."""

    rate: int


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """The next sound."""

    samples: Samples


@dataclass(frozen=True, slots=True)
class Asked:
    """The person has written something."""

    text: str


@dataclass(frozen=True, slots=True)
class Returned:
    """A tool has its result."""

    tool_use_id: str
    content: str


@dataclass(frozen=True, slots=True)
class SoundEnded:
    """No more sound."""


@dataclass(frozen=True, slots=True)
class PromptClosed:
    """Nothing more is asked."""


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The client is done."""


type Step = (
    SessionSet
    | PromptSet
    | Instructed
    | Remembered
    | Listening
    | Heard
    | Asked
    | Returned
    | SoundEnded
    | PromptClosed
    | SessionClosed
)


@dataclass(slots=True)
class _Block:
    start: ContentStart
    parts: list[str] = field(default_factory=list)
    size: int = 0


class InputOrder:
    """Follows one stream; what comes out of `take` is in order and whole.

    ``model`` is the model's id: Nova 2 Sonic takes more than Nova Sonic.
    """

    def __init__(self, model: str) -> None:
        self.nova_2 = is_nova_2(model)
        self._session = False
        self._prompt = ""
        self._over: Literal["", "prompt", "session"] = ""
        self._blocks: dict[str, _Block] = {}
        self._used: set[str] = set()
        self._audio: Literal["none", "open", "closed"] = "none"
        self._instructed = False
        self._live = False
        self._history: list[ContentStart] = []
        self._history_bytes = 0
        self._calls: dict[str, None] = {}

    @property
    def ended(self) -> bool:
        """The client has ended its session by the rules."""
        return self._over == "session"

    @property
    def calls(self) -> Sequence[str]:
        """The calls that wait for a result."""
        return [*self._calls]

    def called(self, tool_use_id: str) -> None:
        """The model calls a tool: its result may come."""
        self._calls[tool_use_id] = None
        if len(self._calls) > MOST_CALLS:
            del self._calls[next(iter(self._calls))]

    def take(self, event: InputEvent) -> Step | None:
        """The client's next event; what it means, if it completes something.

        Raises `RefusedError` when it may not come now.
        """
        if self._over == "session":
            raise RefusedError("No event may come after sessionEnd.")
        match event:
            case SessionStart():
                return self._start_session(event)
            case _ if not self._session:
                raise RefusedError("The first event must be sessionStart.")
            case PromptStart():
                return self._start_prompt(event)
            case SessionEnd():
                if self._prompt and not self._over:
                    raise RefusedError("promptEnd must come before sessionEnd.")
                self._over = "session"
                return SessionClosed()
            case _ if not self._prompt:
                raise RefusedError("promptStart must come before anything of the prompt.")
            case _ if event.prompt_name != self._prompt:
                raise RefusedError(f"No prompt is called {event.prompt_name}.")
            case _ if self._over:
                raise RefusedError("Nothing may come after promptEnd but sessionEnd.")
            case ContentStart():
                return self._start_block(event)
            case TextInput() | AudioInput() | ToolResult():
                return self._fill(event)
            case ContentEnd():
                return self._end_block(event)
            case PromptEnd():
                return self._end_prompt()

    def _start_session(self, event: SessionStart) -> Step:
        if self._session:
            raise RefusedError("sessionStart must come once.")
        if self.nova_2 and event.endpointing_sensitivity is not None:
            raise RefusedError(
                "Invalid input request: endpointingSensitivity belongs into "
                "turnDetectionConfiguration."
            )
        if not self.nova_2 and event.turn_detection_configuration is not None:
            raise RefusedError(
                "Invalid input request: this model takes no turnDetectionConfiguration."
            )
        self._session = True
        return SessionSet(event)

    def _start_prompt(self, event: PromptStart) -> Step:
        if self._prompt:
            raise RefusedError("promptStart must come once.")
        voice = event.audio_output_configuration.voice_id
        voices = NOVA_2_VOICES if self.nova_2 else NOVA_1_VOICES
        if voice not in voices:
            raise RefusedError(f"Received invalid voiceId: {voice}.")
        self._prompt = event.prompt_name
        return PromptSet(event)

    def _start_block(self, event: ContentStart) -> Step | None:
        if event.content_name in self._used:
            raise RefusedError(f"A content of the name {event.content_name} was there before.")
        if event.type != "AUDIO":
            for name, block in self._blocks.items():
                if block.start.type != "AUDIO":
                    raise RefusedError(f"The content {name} is still open.")
        match event.type:
            case "TEXT":
                self._check_text(event)
            case "TOOL":
                self._check_result(event)
            case "AUDIO":
                self._check_audio(event)
        self._used.add(event.content_name)
        self._blocks[event.content_name] = _Block(event)
        if event.type != "AUDIO":
            return None
        self._audio, self._live = "open", True
        configuration = event.audio_input_configuration
        return Listening(configuration.sample_rate_hertz if configuration is not None else 16000)

    def _check_text(self, event: ContentStart) -> None:
        if event.text_input_configuration is None:
            raise RefusedError(
                "Invalid input request: a TEXT content has a textInputConfiguration."
            )
        match event.role:
            case "SYSTEM" | "SYSTEM_SPEECH" if event.role == "SYSTEM" or self.nova_2:
                if event.role == "SYSTEM" and self._instructed:
                    raise RefusedError("A SYSTEM content must come once.")
                if self._live or self._history:
                    raise RefusedError(
                        f"A {event.role} content must come before the history and the sound."
                    )
            case "USER" if event.interactive:
                """It may come at any time, and ends the history."""
            case "USER" | "ASSISTANT" if not event.interactive:
                self._check_history(event)
            case _:
                raise RefusedError(
                    "Invalid input request: a TEXT content can't be "
                    f"{'interactive ' if event.interactive else ''}of the role {event.role}."
                )

    def _check_history(self, event: ContentStart) -> None:
        if self._live:
            raise RefusedError("The history must be complete before the sound begins.")
        if len(self._history) >= MOST_MESSAGES:
            raise RefusedError(f"A history has at most {MOST_MESSAGES} messages.")
        before = self._history[-1].role if self._history else "ASSISTANT"
        if event.role == before:
            raise RefusedError(
                "The history must begin with a message of the USER."
                if not self._history
                else "USER and ASSISTANT must alternate in the history."
            )
        self._history.append(event)

    def _check_result(self, event: ContentStart) -> None:
        configuration = event.tool_result_input_configuration
        if configuration is None or event.role != "TOOL":
            raise RefusedError(
                "Invalid input request: a TOOL content has the role TOOL and a "
                "toolResultInputConfiguration."
            )
        if configuration.tool_use_id not in self._calls:
            raise RefusedError(f"No tool use {configuration.tool_use_id} waits for a result.")

    def _check_audio(self, event: ContentStart) -> None:
        configuration = event.audio_input_configuration
        if configuration is None or configuration.voice_id is not None:
            raise RefusedError(
                "Invalid input request: an AUDIO content has an audioInputConfiguration."
            )
        if event.role != "USER" or not event.interactive:
            raise RefusedError("Invalid input request: an AUDIO content is interactive, of a USER.")
        if self._audio != "none":
            raise RefusedError("An AUDIO content must come once in a session.")
        if self._blocks:
            raise RefusedError(f"The content {next(iter(self._blocks))} is still open.")

    def _fill(self, event: TextInput | AudioInput | ToolResult) -> Step | None:
        block = self._blocks.get(event.content_name)
        if block is None:
            raise RefusedError(f"No content {event.content_name} is open.")
        wanted = {"TEXT": TextInput, "AUDIO": AudioInput, "TOOL": ToolResult}[block.start.type]
        if not isinstance(event, wanted):
            raise RefusedError(f"The content {event.content_name} is of type {block.start.type}.")
        if isinstance(event, AudioInput):
            return Heard(_samples(event.content))
        block.parts.append(event.content)
        block.size += len(event.content.encode())
        self._check_size(block)
        return None

    def _check_size(self, block: _Block) -> None:
        most = MOST_TEXT
        if self._history and block.start is self._history[-1]:
            most = min(50_000 if self.nova_2 else 1_000, MOST_TEXT - self._history_bytes)
        if block.size > most:
            raise RefusedError(f"A text of {block.size} bytes is too long: {most} may come here.")

    def _end_block(self, event: ContentEnd) -> Step | None:
        block = self._blocks.pop(event.content_name, None)
        if block is None:
            raise RefusedError(f"No content {event.content_name} is open.")
        start, text = block.start, "".join(block.parts)
        if start.type == "AUDIO":
            self._audio = "closed"
            return SoundEnded()
        if not text:
            raise RefusedError(f"The content {event.content_name} has ended without a word.")
        match start.role:
            case "SYSTEM":
                self._instructed = True
                return Instructed(text)
            case "USER" if start.interactive:
                self._live = True
                return Asked(text)
            case "USER" | "ASSISTANT":
                self._history_bytes += block.size
                return Remembered(start.role, text)
            case "TOOL":
                configuration = start.tool_result_input_configuration
                tool_use_id = configuration.tool_use_id if configuration is not None else ""
                self._calls.pop(tool_use_id, None)
                return Returned(tool_use_id, text)
            case "SYSTEM_SPEECH":
                return None

    def _end_prompt(self) -> Step:
        if self._blocks:
            raise RefusedError(f"The content {next(iter(self._blocks))} is still open.")
        if not self.nova_2 and self._audio == "none":
            raise RefusedError("A prompt must have an AUDIO content.")
        self._over = "prompt"
        return PromptClosed()


def is_nova_2(model: str) -> bool:
    """Return whether the id, or that of an inference profile, is of Nova 2 Sonic or later."""
    return "nova-2-" in model


def _samples(text: str) -> Samples:
    try:
        data = pybase64.b64decode(text, validate=True)
    except ValueError:
        raise RefusedError("Invalid input request: audioInput.content is not base64.") from None
    if len(data) % 2:
        raise RefusedError("Invalid input request: audioInput.content has half a sample.")
    return np.frombuffer(data, "<i2").astype(np.int16, copy=False)
