"""Builds the events that a client sends, in the only order that the service accepts; sans-IO.

    sessionStart
    promptStart
    the system prompt, the history      blocks of text
    audio                               one block, open until the end
      texts, tool results               blocks of their own between pieces of audio
    contentEnd, promptEnd, sessionEnd

Source: "Input event flow" in the guides of Nova 2 Sonic and Nova Sonic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from uuid import uuid4

from duologue._optional import optional
from duologue.audio import Samples
from duologue.json_types import Json, JsonObject
from duologue.providers._json_fields import deep_merge
from duologue.providers.aws._config import RealtimeConfig
from duologue.providers.aws._history import HistoryMessage, split_text
from duologue.realtime.commands import ToolSpec

with optional("aws"):
    import orjson
    import pybase64

    from duologue.providers._json_text import encode_object


_TEXT_FORMAT: JsonObject = {"mediaType": "text/plain"}


class Stage(Enum):
    """How far the client has brought the session."""

    NEW = "new"
    STARTED = "begun"
    STREAMING = "sounding"
    ENDED = "ended"


class EventSequence:
    """One session's events; each method returns the events to send next.

    A method returns nothing if its events are not allowed any more or not yet. ``new_id`` makes the
    ids of the prompt and of its blocks.
    """

    def __init__(
        self, config: RealtimeConfig, new_id: Callable[[], str] = lambda: str(uuid4())
    ) -> None:
        self._config = config
        self._new_id = new_id
        self._prompt_name = new_id()
        self._audio_name = new_id()
        self._open_calls: set[str] = set()
        head = self._event("audioInput", promptName=self._prompt_name, contentName=self._audio_name)
        self._audio_head = head[:-3] + b',"content":"'
        self.stage = Stage.NEW

    def begin(self, instructions: str, tools: Sequence[ToolSpec]) -> list[bytes]:
        """Start the session and the prompt, and send the system prompt."""
        if self.stage is not Stage.NEW:
            return []
        self.stage = Stage.STARTED
        system = self._text_block("SYSTEM", [instructions], interactive=False)
        return [self._session_start(), self._prompt_start(tools), *(system if instructions else ())]

    def start_audio(self, history: Sequence[HistoryMessage] = ()) -> list[bytes]:
        """Send the complete history, then open the block of audio."""
        if self.stage is not Stage.STARTED:
            return []
        self.stage = Stage.STREAMING
        events: list[bytes] = []
        for message in history:
            events += self._text_block(message.role, split_text(message.text), interactive=False)
        start = self._event(
            "contentStart",
            promptName=self._prompt_name,
            contentName=self._audio_name,
            type="AUDIO",
            interactive=True,
            role="USER",
            audioInputConfiguration=self._audio_format(self._config.input_rate),
        )
        return [*events, start]

    def audio(self, samples: Samples) -> list[bytes]:
        """Send input audio."""
        if self.stage is not Stage.STREAMING:
            return []
        data = samples.astype("<i2", copy=False).tobytes()
        return [b"".join((self._audio_head, pybase64.b64encode(data), b'"}}}'))]

    def text(self, text: str) -> list[bytes]:
        """Send a text for the model to answer."""
        if self.stage is not Stage.STREAMING or not text:
            return []
        return self._text_block("USER", split_text(text), interactive=True)

    def register_call(self, call_id: str) -> None:
        """Record that the model has called a tool."""
        self._open_calls.add(call_id)

    def has_call(self, call_id: str) -> bool:
        """Return whether the model waits for the result of this call in this session."""
        return call_id in self._open_calls

    def tool_result(self, call_id: str, content: str) -> list[bytes]:
        """Send the result of a call, as JSON text; a call has only one."""
        if self.stage is not Stage.STREAMING or call_id not in self._open_calls:
            return []
        self._open_calls.discard(call_id)
        block = self._new_id()
        start = self._event(
            "contentStart",
            promptName=self._prompt_name,
            contentName=block,
            type="TOOL",
            interactive=False,
            role="TOOL",
            toolResultInputConfiguration={
                "toolUseId": call_id,
                "type": "TEXT",
                "textInputConfiguration": _TEXT_FORMAT,
            },
        )
        return [
            start,
            self._event(
                "toolResult", promptName=self._prompt_name, contentName=block, content=content
            ),
            self._content_end(block),
        ]

    def end(self) -> list[bytes]:
        """End the audio, the prompt and the session."""
        stage, self.stage = self.stage, Stage.ENDED
        if stage in (Stage.NEW, Stage.ENDED):
            return []
        events = [self._content_end(self._audio_name)] if stage is Stage.STREAMING else []
        prompt = self._event("promptEnd", promptName=self._prompt_name)
        return [*events, prompt, self._event("sessionEnd")]

    def _session_start(self) -> bytes:
        config = self._config
        fields: JsonObject = {
            "inferenceConfiguration": {
                "maxTokens": config.max_output_tokens,
                "topP": config.top_p,
                "temperature": config.temperature,
            }
        }
        if config.endpointing is not None:
            sensitivity = config.endpointing
            fields["turnDetectionConfiguration"] = {"endpointingSensitivity": sensitivity}
        return self._extended_event("sessionStart", fields)

    def _prompt_start(self, tools: Sequence[ToolSpec]) -> bytes:
        config = self._config
        fields: JsonObject = {
            "promptName": self._prompt_name,
            "textOutputConfiguration": _TEXT_FORMAT,
            "audioOutputConfiguration": {
                **self._audio_format(config.output_rate),
                "voiceId": config.voice,
            },
        }
        if tools:
            configuration: JsonObject = {"tools": [_tool_spec(tool) for tool in tools]}
            choice = config.tool_choice
            if choice is not None:
                named: JsonObject = {choice: {}}
                tool: JsonObject = {"tool": {"name": choice}}
                configuration["toolChoice"] = named if choice in ("auto", "any") else tool
            fields["toolUseOutputConfiguration"] = {"mediaType": "application/json"}
            fields["toolConfiguration"] = configuration
        return self._extended_event("promptStart", fields)

    def _extended_event(self, event: str, fields: JsonObject) -> bytes:
        return self._event(event, **deep_merge(fields, self._config.extra_fields(event)))

    def _text_block(self, role: str, parts: Sequence[str], *, interactive: bool) -> list[bytes]:
        block = self._new_id()
        start = self._event(
            "contentStart",
            promptName=self._prompt_name,
            contentName=block,
            type="TEXT",
            interactive=interactive,
            role=role,
            textInputConfiguration=_TEXT_FORMAT,
        )
        texts = [
            self._event("textInput", promptName=self._prompt_name, contentName=block, content=part)
            for part in parts
        ]
        return [start, *texts, self._content_end(block)]

    def _content_end(self, block: str) -> bytes:
        return self._event("contentEnd", promptName=self._prompt_name, contentName=block)

    def _audio_format(self, rate: int) -> JsonObject:
        return {
            "mediaType": "audio/lpcm",
            "sampleRateHertz": rate,
            "sampleSizeBits": 16,
            "channelCount": 1,
            "audioType": "SPEECH",
            "encoding": "base64",
        }

    def _event(self, event: str, **fields: Json) -> bytes:
        return encode_object({"event": {event: fields}})


def _tool_spec(tool: ToolSpec) -> JsonObject:
    schema = orjson.dumps(tool.parameters).decode()
    return {
        "toolSpec": {
            "name": tool.name,
            # Must not be empty ("ToolSpecification" in the API reference of Bedrock).
            "description": tool.description or tool.name,
            # The schema is text, which the service does not parse (Nova guide, "Using tools").
            "inputSchema": {"json": schema},
        }
    }
