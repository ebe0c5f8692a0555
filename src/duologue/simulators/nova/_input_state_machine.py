"""Which event the client may send when; without clock or I/O.

Source: "Input event flow" in the Amazon Nova user guides. The bounds of a history are those of the
guides and of AWS' samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pybase64

from duologue._bounded_dict import BoundedDict
from duologue.audio import Samples
from duologue.simulators.nova._input_events import (
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

MAX_HISTORY_MESSAGES = 40
"""Messages of a history."""
MAX_TEXT_BYTES = 200_000
"""Bytes of a text that is not part of the history, and of the whole history."""
MAX_CALLS = 256
"""Tool calls that may wait for their results."""


@dataclass(frozen=True, slots=True)
class SessionConfigured:
    """The client has configured the session."""

    event: SessionStart


@dataclass(frozen=True, slots=True)
class PromptConfigured:
    """The client has configured the prompt."""

    event: PromptStart


@dataclass(frozen=True, slots=True)
class SystemPromptReceived:
    """The system prompt is complete."""

    text: str


@dataclass(frozen=True, slots=True)
class HistoryMessageReceived:
    """A message of the history is complete."""

    role: Literal["USER", "ASSISTANT"]
    text: str


@dataclass(frozen=True, slots=True)
class AudioStarted:
    """The input audio begins, at ``rate`` Hz."""

    rate: int


@dataclass(frozen=True, slots=True, eq=False)
class AudioReceived:
    """The next input audio."""

    samples: Samples


@dataclass(frozen=True, slots=True)
class TextReceived:
    """A message that the person wrote is complete."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolResultReceived:
    """A tool result is complete."""

    tool_use_id: str
    content: str


@dataclass(frozen=True, slots=True)
class AudioEnded:
    """The input audio has ended."""


@dataclass(frozen=True, slots=True)
class PromptEnded:
    """The client has ended the prompt."""


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The client has ended the session."""


type Step = (
    SessionConfigured
    | PromptConfigured
    | SystemPromptReceived
    | HistoryMessageReceived
    | AudioStarted
    | AudioReceived
    | TextReceived
    | ToolResultReceived
    | AudioEnded
    | PromptEnded
    | SessionEnded
)


@dataclass(slots=True)
class _Block:
    start: ContentStart
    parts: list[str] = field(default_factory=list)
    size: int = 0


class InputStateMachine:
    """Checks the order of one stream's events and joins the events of a block.

    ``model`` is the model's id, because Nova 2 Sonic accepts more than Nova Sonic.
    """

    def __init__(self, model: str) -> None:
        self.nova_2 = is_nova_2(model)
        self._session_started = False
        self._prompt_name = ""
        self._ended: Literal["", "prompt", "session"] = ""
        self._blocks: dict[str, _Block] = {}
        self._used_names: set[str] = set()
        self._audio: Literal["none", "open", "closed"] = "none"
        self._has_system_prompt = False
        self._history_closed = False
        self._history: list[ContentStart] = []
        self._history_bytes = 0
        self._pending_calls: BoundedDict[str, None] = BoundedDict(MAX_CALLS)

    @property
    def has_ended(self) -> bool:
        """Whether the client has ended its session as the protocol demands."""
        return self._ended == "session"

    @property
    def pending_calls(self) -> Sequence[str]:
        """The tool calls that wait for a result."""
        return [*self._pending_calls]

    def add_call(self, tool_use_id: str) -> None:
        """Accept a result of this tool call from now on."""
        self._pending_calls[tool_use_id] = None

    def accept(self, event: InputEvent) -> Step | None:
        """Accept the client's next event; return what it completes, if it completes anything.

        Raises `RefusedError` if the event may not come now.
        """
        if self._ended == "session":
            raise RefusedError("No event may come after sessionEnd.")
        match event:
            case SessionStart():
                return self._start_session(event)
            case _ if not self._session_started:
                raise RefusedError("The first event must be sessionStart.")
            case PromptStart():
                return self._start_prompt(event)
            case SessionEnd():
                if self._prompt_name and not self._ended:
                    raise RefusedError("promptEnd must come before sessionEnd.")
                self._ended = "session"
                return SessionEnded()
            case _ if not self._prompt_name:
                raise RefusedError("promptStart must come before anything of the prompt.")
            case _ if event.prompt_name != self._prompt_name:
                raise RefusedError(f"No prompt is called {event.prompt_name}.")
            case _ if self._ended:
                raise RefusedError("Nothing may come after promptEnd but sessionEnd.")
            case ContentStart():
                return self._start_block(event)
            case TextInput() | AudioInput() | ToolResult():
                return self._fill_block(event)
            case ContentEnd():
                return self._end_block(event)
            case PromptEnd():
                return self._end_prompt()

    def _start_session(self, event: SessionStart) -> Step:
        if self._session_started:
            raise RefusedError("sessionStart must come once.")
        if self.nova_2 and event.endpointing_sensitivity is not None:
            raise RefusedError(
                "Invalid input request: endpointingSensitivity must be in "
                "turnDetectionConfiguration."
            )
        if not self.nova_2 and event.turn_detection_configuration is not None:
            raise RefusedError(
                "Invalid input request: this model does not accept turnDetectionConfiguration."
            )
        self._session_started = True
        return SessionConfigured(event)

    def _start_prompt(self, event: PromptStart) -> Step:
        if self._prompt_name:
            raise RefusedError("promptStart must come once.")
        voice = event.audio_output_configuration.voice_id
        voices = NOVA_2_VOICES if self.nova_2 else NOVA_1_VOICES
        if voice not in voices:
            raise RefusedError(f"Received invalid voiceId: {voice}.")
        self._prompt_name = event.prompt_name
        return PromptConfigured(event)

    def _start_block(self, event: ContentStart) -> Step | None:
        if event.content_name in self._used_names:
            raise RefusedError(f"There was a content named {event.content_name} before.")
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
        self._used_names.add(event.content_name)
        self._blocks[event.content_name] = _Block(event)
        if event.type != "AUDIO":
            return None
        self._audio, self._history_closed = "open", True
        configuration = event.audio_input_configuration
        return AudioStarted(configuration.sample_rate_hertz if configuration is not None else 16000)

    def _check_text(self, event: ContentStart) -> None:
        if event.text_input_configuration is None:
            raise RefusedError(
                "Invalid input request: a TEXT content has a textInputConfiguration."
            )
        match event.role:
            case "SYSTEM" | "SYSTEM_SPEECH" if event.role == "SYSTEM" or self.nova_2:
                if event.role == "SYSTEM" and self._has_system_prompt:
                    raise RefusedError("A SYSTEM content must come once.")
                if self._history_closed or self._history:
                    raise RefusedError(
                        f"A {event.role} content must come before the history and the audio."
                    )
            case "USER" if event.interactive:
                pass  # Accepted at any time; it ends the history
            case "USER" | "ASSISTANT" if not event.interactive:
                self._check_history(event)
            case _:
                raise RefusedError(
                    "Invalid input request: a TEXT content can't be "
                    f"{'interactive ' if event.interactive else ''}of the role {event.role}."
                )

    def _check_history(self, event: ContentStart) -> None:
        if self._history_closed:
            raise RefusedError("The history must be complete before the audio begins.")
        if len(self._history) >= MAX_HISTORY_MESSAGES:
            raise RefusedError(f"A history has at most {MAX_HISTORY_MESSAGES} messages.")
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
        if configuration.tool_use_id not in self._pending_calls:
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

    def _fill_block(self, event: TextInput | AudioInput | ToolResult) -> Step | None:
        block = self._blocks.get(event.content_name)
        if block is None:
            raise RefusedError(f"No content {event.content_name} is open.")
        expected = {"TEXT": TextInput, "AUDIO": AudioInput, "TOOL": ToolResult}[block.start.type]
        if not isinstance(event, expected):
            raise RefusedError(f"The content {event.content_name} is of type {block.start.type}.")
        if isinstance(event, AudioInput):
            return AudioReceived(_decode_samples(event.content))
        block.parts.append(event.content)
        block.size += len(event.content.encode())
        self._check_size(block)
        return None

    def _check_size(self, block: _Block) -> None:
        limit = MAX_TEXT_BYTES
        if self._history and block.start is self._history[-1]:
            limit = min(50_000 if self.nova_2 else 1_000, MAX_TEXT_BYTES - self._history_bytes)
        if block.size > limit:
            raise RefusedError(
                f"A text of {block.size} bytes is too long: the limit here is {limit}."
            )

    def _end_block(self, event: ContentEnd) -> Step | None:
        block = self._blocks.pop(event.content_name, None)
        if block is None:
            raise RefusedError(f"No content {event.content_name} is open.")
        start, text = block.start, "".join(block.parts)
        if start.type == "AUDIO":
            self._audio = "closed"
            return AudioEnded()
        if not text:
            raise RefusedError(f"The content {event.content_name} has ended without any text.")
        match start.role:
            case "SYSTEM":
                self._has_system_prompt = True
                return SystemPromptReceived(text)
            case "USER" if start.interactive:
                self._history_closed = True
                return TextReceived(text)
            case "USER" | "ASSISTANT":
                self._history_bytes += block.size
                return HistoryMessageReceived(start.role, text)
            case "TOOL":
                configuration = start.tool_result_input_configuration
                tool_use_id = configuration.tool_use_id if configuration is not None else ""
                self._pending_calls.pop(tool_use_id, None)
                return ToolResultReceived(tool_use_id, text)
            case "SYSTEM_SPEECH":
                return None

    def _end_prompt(self) -> Step:
        if self._blocks:
            raise RefusedError(f"The content {next(iter(self._blocks))} is still open.")
        if not self.nova_2 and self._audio == "none":
            raise RefusedError("A prompt must have an AUDIO content.")
        self._ended = "prompt"
        return PromptEnded()


def is_nova_2(model: str) -> bool:
    """Return whether the id, or that of an inference profile, is of Nova 2 Sonic or later."""
    return "nova-2-" in model


def _decode_samples(text: str) -> Samples:
    try:
        data = pybase64.b64decode(text, validate=True)
    except ValueError:
        raise RefusedError("Invalid input request: audioInput.content is not base64.") from None
    if len(data) % 2:
        raise RefusedError("Invalid input request: audioInput.content has an odd number of bytes.")
    return np.frombuffer(data, "<i2").astype(np.int16, copy=False)
