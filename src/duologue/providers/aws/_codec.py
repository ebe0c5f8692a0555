"""Maps commands to Nova Sonic's events, and its events to outputs; sans-IO.

    commands -> Codec.encode -> EventSequence -> events to the service
                      |
                  _queue of texts, one at a time: Replies.pending_request
                      |
    outputs  <- Codec.decode <- Replies <- ContentBlocks <- events of the service

Six properties of the service shape this codec:

1. It accepts events in one order only, and history only before the audio. The history is
   therefore kept here until the first audio or text is sent, so that items can still be added
   to a stream that stands by for a rollover.
2. It ends a stream that gets no audio for 55 s. A stream that nothing is sent to is given
   silence, but a standby stream only after `MAX_UNUSED_IDLES` signals, because of (1).
3. It treats text in mid-session as an interruption. A text therefore waits in a queue until the
   reply before it has been played, and only one text is sent before it is answered.
4. Its replies name no request. The next reply belongs to the text that was sent, unless the
   person spoke meanwhile: the service then answers them and drops the text without an event,
   so the codec refuses the request itself. `REPLY_TIMEOUT_S` covers every other loss.
5. Its history can't be edited. A truncation is reported in words with the next text, unless
   the service noticed the interruption itself.
6. It reports an interruption when it hears any sound. Before the next text is sent, barge-in
   gets `BARGE_IN_HOLD_S` to decide whether that sound really was an interruption.

The codec has no clock: it measures time by the samples of input audio that it has sent.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never
from uuid import uuid4

from duologue._numpy import np
from duologue.audio import loudness
from duologue.items import AgentItem, Item, SystemItem, UserItem
from duologue.json_types import JsonObject
from duologue.providers._verbatim import verbatim_instructions
from duologue.providers.aws._blocks import ContentBlocks
from duologue.providers.aws._capabilities import generation_of
from duologue.providers.aws._config import RealtimeConfig
from duologue.providers.aws._event_sequence import EventSequence, Stage
from duologue.providers.aws._history import history_messages, tool_note
from duologue.providers.aws._replies import Replies, TextRequest
from duologue.providers.aws._signals import (
    IDLE_S,
    Flush,
    Message,
    StreamAccepted,
    StreamIdle,
    StreamQuiet,
)
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import (
    AddItem,
    CancelReply,
    ClearInput,
    Command,
    DeleteItem,
    EndTurn,
    Ping,
    RequestReply,
    Say,
    SendAudio,
    SendToolResult,
    SendVideo,
    Truncate,
    UpdateSession,
)
from duologue.realtime.outputs import (
    Output,
    ReplyInterrupted,
    ReplyRefused,
    SessionStarted,
    UserTranscript,
)

SILENCE_MS = 100
"""Length of the silence sent when there is no input audio but the service needs some."""
PLAYBACK_GRACE_S = 1.0
"""A reply counts as played this long after its audio should have ended, even if unreported."""
REPLY_TIMEOUT_S = 10.0
"""A text that has no reply after this time is refused."""
MAX_UNUSED_IDLES = 4
"""`StreamIdle` signals after which an unused stream gets audio.

The service ends a stream that has heard nothing for 55 s, as its own error message says.
"""
BARGE_IN_HOLD_S = 1.0
"""Seconds without requests after the service interrupts itself.

Barge-in must first decide what the service heard.
"""
LOUD_RMS = 300.0
"""RMS of int16 samples above which a frame may be speech."""

_CONTINUE_PROMPT = "[The person has said nothing new. Go on with the conversation.]"
_INSTRUCTIONS_NOTE = "[For your next reply, and not said by the person: {}]"
_HEARD_NOTE = "[The person interrupted you, and has heard no more than: {}]"
_NOTHING_HEARD = "nothing at all"
_MAX_NOTES = 16


@dataclass(frozen=True, slots=True)
class _QueuedText:
    """A text that waits to be sent; ``content`` must reach the model even if it is refused."""

    request: TextRequest
    text: str
    content: Sequence[str] = ()


class Codec:
    """A `duologue.realtime.codec.Codec` for one connection; a new connection needs a new one."""

    def __init__(self, config: RealtimeConfig) -> None:
        self._config = config
        self._generation = generation_of(config.model)
        self._sequence = EventSequence(config)
        self._replies = Replies(config.output_rate)
        self.blocks = ContentBlocks(self._replies, self._sequence.register_call)
        self._history: list[Item] = []
        self._user_texts: list[str] = []
        """Texts of the person for the next request."""
        self._notes: list[str] = []
        """Notes to the model that go with the next request."""
        self._unreported_cut: tuple[str, str] | None = None
        """Item id and heard text of a truncation that the service has not been told about."""
        self._last_history_item = ""
        """Id of the newest agent item in the history that was sent."""
        self._accepted = False
        self._unused_idles = 0
        """`StreamIdle` signals received while this stream was unused."""
        self._queue: deque[_QueuedText] = deque()
        self._sent_samples = 0
        """Samples of input audio sent: the clock of this codec."""
        self._playing_reply_id = ""
        self._playing_since = 0
        self._requested_at = 0
        self._interrupted_at: int | None = None
        """Position in the input audio where the service interrupted itself."""
        self._may_be_spoken_over = False
        """Whether the person may have spoken since the unanswered text was sent."""
        self._pending: list[Message] = []
        self._refusals: list[Output] = []

    @property
    def unknown(self) -> Mapping[str, int]:
        """Events of types that this version does not know, by type."""
        return self.blocks.unknown

    @property
    def malformed(self) -> int:
        """Events that could not be decoded."""
        return self.blocks.malformed

    def open(self, setup: SessionSetup) -> Sequence[Message]:
        """Return the first events of the session; the history follows when it is needed."""
        self._history = list(setup.history)
        return self._sequence.begin(setup.instructions, setup.tools)

    def encode(self, command: Command) -> Sequence[Message]:
        """Return the messages for a command."""
        match command:
            case SendAudio(frame=frame):
                self._sent_samples += len(frame)
                if self._replies.pending_request is not None and not self._may_be_spoken_over:
                    self._may_be_spoken_over = loudness(frame.samples) > LOUD_RMS
                flush = [Flush()] if self._expire_request() else []
                start, due = self._start_audio(), self._next_text()
                return [*flush, *start, *due, *self._sequence.audio(frame.samples)]
            case AddItem(item=item):
                self._add_item(item)
                return ()
            case Truncate(item_id=item_id, heard_text=heard):
                return self._truncate(item_id, heard)
            case DeleteItem(item_id=item_id):
                return self._truncate(item_id, "")
            case CancelReply(reply_id=reply_id):
                cancelled = self._replies.cancel(reply_id)
                # Assume that nothing of it was heard, unless a `Truncate` follows.
                return self._truncate(cancelled, "") if cancelled is not None else ()
            case RequestReply(request_id=request_id, instructions=instructions):
                texts = self._take_user_texts()
                text = self._compose(texts, instructions)
                return self._enqueue(_QueuedText(TextRequest(request_id), text, texts))
            case Say(request_id=request_id, text=text):
                return self._enqueue(
                    _QueuedText(TextRequest(request_id, text), verbatim_instructions(text))
                )
            case SendToolResult():
                return self._send_result(command)
            case SendVideo() | EndTurn() | ClearInput() | UpdateSession() | Ping():
                return ()  # Ruled out by the model's capabilities.
            case _:
                assert_never(command)

    def decode(self, message: Message) -> Sequence[Output]:
        """Decode an event of the service or a signal of the wire."""
        outputs: list[Output] = []
        match message:
            case bytes():
                outputs += self.blocks.decode(message)
                self._note_speech(outputs)
            case StreamAccepted(expires_in=expires_in):
                self._accepted = True
                outputs.append(SessionStarted(self._session_info(), expires_in))
            case StreamQuiet():
                outputs += self._replies.end_tool_calls()
            case Flush():
                pass  # The outputs are added below
            case StreamIdle() if self._may_stay_unused():
                pass  # Items can still be added to its history
            case StreamIdle():
                self._sent_samples += round(IDLE_S * self._config.input_rate)
                self._pending += self._start_audio()
                silence = np.zeros(self._config.input_rate * SILENCE_MS // 1000, np.int16)
                self._pending += self._sequence.audio(silence)
                self._expire_request()
            case _:
                assert_never(message)
        last = self._replies.last
        if last is not None and last.samples and last.id != self._playing_reply_id:
            self._playing_reply_id, self._playing_since = last.id, self._sent_samples
        self._pending += self._next_text()
        outputs += self._refusals
        self._refusals.clear()
        return outputs

    def pending(self) -> Sequence[Message]:
        """Return the messages that the codec sends on its own, each once."""
        pending, self._pending = self._pending, []
        return pending

    def closing_messages(self) -> Sequence[Message]:
        """Return the events that end the audio, the prompt and the session."""
        return self._sequence.end()

    def _note_speech(self, outputs: Sequence[Output]) -> None:
        """Draw the consequences of what the service heard."""
        for output in outputs:
            match output:
                case ReplyInterrupted():
                    self._interrupted_at = self._sent_samples
                case UserTranscript() if self._may_be_spoken_over:
                    # A late transcript of an earlier turn, without loud audio since, is ignored.
                    self._refuse_pending("interrupted", "the person spoke before it was answered")
                case _:
                    pass

    def _session_info(self) -> JsonObject:
        config = self._config
        info: JsonObject = {
            "model": config.model,
            "region": config.region,
            "voice": config.voice,
            "maxTokens": config.max_output_tokens,
            "temperature": config.temperature,
            "topP": config.top_p,
        }
        if config.endpointing is not None:
            info["endpointingSensitivity"] = config.endpointing
        return info

    def _may_stay_unused(self) -> bool:
        """Return whether a standby stream may stay without audio for now."""
        if not self._accepted or self._sequence.stage is not Stage.STARTED:
            return False
        self._unused_idles += 1
        return self._unused_idles < MAX_UNUSED_IDLES

    def _start_audio(self) -> Sequence[Message]:
        if self._sequence.stage is not Stage.STARTED:
            return ()
        history, self._history = self._history, []
        agent_ids = [item.id for item in history if isinstance(item, AgentItem)]
        self._last_history_item = agent_ids[-1] if agent_ids else ""
        return self._sequence.start_audio(history_messages(history, self._generation))

    def _add_item(self, item: Item) -> None:
        if self._sequence.stage is Stage.STARTED:
            self._history.append(item)
            return
        match item:
            case UserItem(text=str(text), spoken=False):
                self._user_texts.append(text)
            case SystemItem(text=text):
                self._add_note(f"[{text}]")
            case AgentItem(id=item_id, text=text) if self._replies.by_item(item_id) is None:
                self._add_note(f"[You have said: {text}]")
            case _:
                pass  # The model heard what was spoken, and knows its own tool calls

    def _truncate(self, item_id: str, heard: str) -> Sequence[Message]:
        """Replace an item by what was heard of it, or delete it if that is nothing."""
        if self._sequence.stage is Stage.STARTED:
            self._truncate_history(item_id, heard)
            return ()
        reply = self._replies.by_item(item_id)
        if reply is not None:
            reply.interrupted = True
            self._unreported_cut = item_id, heard
        elif item_id == self._last_history_item and self._replies.last is None:
            # This item was still being played when this stream took over.
            self._unreported_cut = item_id, heard
        return self._drop_queue()

    def _truncate_history(self, item_id: str, heard: str) -> None:
        index = next((i for i, it in enumerate(self._history) if it.id == item_id), None)
        item = None if index is None else self._history[index]
        if index is not None and isinstance(item, AgentItem) and heard:
            self._history[index] = AgentItem(item_id, heard, "cut", item.played_ms)
        elif index is not None:
            del self._history[index]

    def _drop_queue(self) -> Sequence[Message]:
        """Refuse all waiting texts, because an interruption came after them."""
        if not self._queue:
            return ()
        for text in self._queue:
            message = "it was interrupted before it was sent"
            self._refusals.append(ReplyRefused(text.request.request_id, "interrupted", message))
            self._user_texts += text.content
        self._queue.clear()
        return [Flush()]

    def _add_note(self, note: str) -> None:
        self._notes = [*self._notes, note][-_MAX_NOTES:]

    def _take_user_texts(self) -> list[str]:
        """Take the texts that the next reply answers."""
        while self._sequence.stage is Stage.STARTED and self._history:
            match self._history[-1]:
                case UserItem(text=text):
                    # The model answers this text; it would not answer history.
                    self._user_texts[:0] = [text] if text else []
                    self._history.pop()
                case _:
                    break
        texts, self._user_texts = self._user_texts, []
        return texts

    def _compose(self, user_texts: Sequence[str], instructions: str | None) -> str:
        """Join everything that the model must know now and what its reply is for."""
        parts = [*self._notes, *self._take_heard_note(), *user_texts]
        if instructions:
            parts.append(_INSTRUCTIONS_NOTE.format(instructions))
        elif not user_texts:
            parts.append(_CONTINUE_PROMPT)
        self._notes = []
        return "\n".join(parts)

    def _take_heard_note(self) -> Sequence[str]:
        """Return a note of what was heard of the newest reply, if the service believes more was."""
        cut, self._unreported_cut = self._unreported_cut, None
        last = self._replies.last
        if cut is None:
            return ()
        if last is not None and (
            last.item_id != cut[0] or last.interrupted_by_service or not last.samples
        ):
            return ()
        heard = json.dumps(cut[1], ensure_ascii=False) if cut[1] else _NOTHING_HEARD
        return [_HEARD_NOTE.format(heard)]

    def _enqueue(self, text: _QueuedText) -> Sequence[Message]:
        if not self._generation.accepts_text:
            message = f"{self._config.model} replies to speech only: use amazon.nova-2-sonic-v1:0"
            request_id = text.request.request_id
            self._refusals.append(ReplyRefused(request_id, "unsupported", message))
            return [Flush()]
        self._queue.append(text)
        return self._next_text()

    def _next_text(self) -> Sequence[Message]:
        """Return the events of the next waiting text, if it may be sent now."""
        if not self._queue or self._is_busy():
            return ()
        due = self._queue.popleft()
        self._replies.pending_request = due.request
        self._requested_at = self._sent_samples
        self._may_be_spoken_over = False
        self.blocks.sent_text = due.text
        return [*self._start_audio(), *self._sequence.text(due.text)]

    def _is_busy(self) -> bool:
        """Return whether the next text must wait.

        It waits while the last text is unanswered, while the newest reply seems to be playing, and
        while the person may be speaking.
        """
        if self._replies.pending_request is not None:
            return True
        if (
            self._interrupted_at is not None
            and self._seconds_since(self._interrupted_at) < BARGE_IN_HOLD_S
        ):
            return True
        last = self._replies.last
        if last is None or not last.is_playing:
            return False
        length = last.samples / self._config.output_rate
        return (
            not last.finished
            or self._seconds_since(self._playing_since) < length + PLAYBACK_GRACE_S
        )

    def _expire_request(self) -> bool:
        """Refuse the last text if it has waited too long; return whether it was refused.

        The service drops a text without an event when the person speaks or coughs before the reply
        begins.
        """
        if (
            self._replies.pending_request is None
            or self._seconds_since(self._requested_at) < REPLY_TIMEOUT_S
        ):
            return False
        self._refuse_pending("unanswered", "the service has not answered it")
        return True

    def _refuse_pending(self, code: str, message: str) -> None:
        """Refuse the text that was sent; the next reply does not belong to it."""
        request, self._replies.pending_request = self._replies.pending_request, None
        self._may_be_spoken_over = False
        if request is not None:
            self._refusals.append(ReplyRefused(request.request_id, code, message, busy=True))

    def _seconds_since(self, sent: int) -> float:
        return (self._sent_samples - sent) / self._config.input_rate

    def _send_result(self, command: SendToolResult) -> Sequence[Message]:
        output = command.output
        if self._sequence.has_call(command.call_id):
            return self._sequence.tool_result(
                command.call_id, _result_json(output, failed=command.failed)
            )
        if not self._generation.accepts_text:
            return ()
        # The tool was called on an earlier connection; this one knows the call from its history.
        note = tool_note(command.name, "…", output, failed=command.failed)
        return self._enqueue(
            _QueuedText(TextRequest(uuid4().hex), self._compose([note], None), [note])
        )


def _result_json(output: str, *, failed: bool) -> str:
    """Return a tool's result as the JSON object that the service requires, as text."""
    if not failed:
        try:
            if isinstance(json.loads(output), dict):
                return output
        except (ValueError, RecursionError):
            pass  # Not JSON, or nested too deep
    return json.dumps({"error" if failed else "result": output}, ensure_ascii=False)
