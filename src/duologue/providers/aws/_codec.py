"""Nova Sonic's events to and from the session's commands and outputs, without a socket."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never
from uuid import uuid4

import numpy as np

from duologue.audio import Samples
from duologue.items import AgentItem, Item, SystemItem, UserItem
from duologue.json_types import Json
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
"""Sound that is sent where nobody gives any, and the service wants some."""
PLAYBACK_GRACE_S = 1.0
"""A reply that should have been played for so long is over, though nobody has told."""
REPLY_TIMEOUT_S = 10.0
"""A text that was not answered by then will not be."""
MAX_UNUSED_IDLES = 4
"""`Idle`s after which the sound of a stream that is not used begins: the service ends one that has
heard nothing for 55 s, as its own error says."""
BARGE_IN_HOLD_S = 1.0
"""Seconds without requests after the service stopped by itself: it has heard something, and
barge-in has to decide first what that was."""
LOUD_RMS = 300.0
"""RMS of int16 from which on a frame may be somebody's speech."""

_CONTINUE_PROMPT = "[The person has said nothing new. Go on with the conversation.]"
_INSTRUCTIONS_NOTE = "[For your next reply, and not said by the person: {}]"
_HEARD_NOTE = "[The person interrupted you, and has heard no more than: {}]"
_NOTHING_HEARD = "nothing at all"
_MAX_NOTES = 16


@dataclass(frozen=True, slots=True)
class _QueuedText:
    """A text that waits to be sent; ``words`` are what the model has to know of it in any case."""

    request: TextRequest
    text: str
    content: Sequence[str] = ()


class Codec:
    """A `duologue.realtime.codec.Codec` for one connection; a new connection takes a new one.

    The history waits until the sound begins, since it can't be added to once it was sent. A text
    waits until the reply before it has been played, since the service takes it for an interruption.
    """

    def __init__(self, config: RealtimeConfig) -> None:
        self._config = config
        self._generation = generation_of(config.model)
        self._sequence = EventSequence(config)
        self._replies = Replies(config.output_sample_rate)
        self.blocks = ContentBlocks(self._replies, self._sequence.register_call)
        self._history: list[Item] = []
        self._user_texts: list[str] = []
        """What was written for the next text."""
        self._notes: list[str] = []
        """What the model is to know with it."""
        self._unreported_cut: tuple[str, str] | None = None
        """What was heard of which item, where the service has not noticed."""
        self._last_history_item = ""
        """The newest of the model's items in the history that was sent."""
        self._accepted = False
        self._unused_idles = 0
        """How often this stream was idle before it was used."""
        self._queue: deque[_QueuedText] = deque()
        self._sent_samples = 0
        """Samples of the person that were sent: the clock of this codec."""
        self._playing_reply_id = ""
        self._playing_since = 0
        self._requested_at = 0
        self._interrupted_at: int | None = None
        """Position in the input audio where the service stopped by itself."""
        self._may_be_spoken_over = False
        """Somebody may have spoken since the text was sent that is not answered yet."""
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
        """The beginning of the session; the history follows when it is needed."""
        self._history = list(setup.history)
        return self._sequence.begin(setup.instructions, setup.tools)

    def encode(self, command: Command) -> Sequence[Message]:
        """The messages that carry a command."""
        match command:
            case SendAudio(frame=frame):
                self._sent_samples += len(frame)
                if self._replies.pending_request is not None and not self._may_be_spoken_over:
                    self._may_be_spoken_over = _is_loud(frame.samples)
                told = [Flush()] if self._expire_request() else []
                sound = self._sequence.audio
                return [*told, *self._start_audio(), *self._next_text(), *sound(frame.samples)]
            case AddItem(item=item):
                self._add_item(item)
                return ()
            case Truncate(item_id=item_id, heard_text=heard):
                return self._truncate(item_id, heard)
            case DeleteItem(item_id=item_id):
                return self._truncate(item_id, "")
            case CancelReply(reply_id=reply_id):
                cancelled = self._replies.cancel(reply_id)
                # Nothing was heard of it, unless it is told soon that something was.
                return self._truncate(cancelled, "") if cancelled is not None else ()
            case RequestReply(request_id=request_id, instructions=instructions):
                words = self._take_user_texts()
                text = self._compose(words, instructions)
                return self._enqueue(_QueuedText(TextRequest(request_id), text, words))
            case Say(request_id=request_id, text=text):
                return self._enqueue(
                    _QueuedText(TextRequest(request_id, text), verbatim_instructions(text))
                )
            case SendToolResult():
                return self._send_result(command)
            case SendVideo() | EndTurn() | ClearInput() | UpdateSession() | Ping():
                return ()  # Its profile says that it can't.
            case _:
                assert_never(command)

    def decode(self, message: Message) -> Sequence[Output]:
        """What an event means, or what the wire tells."""
        outputs: list[Output] = []
        match message:
            case StreamAccepted(expires_in=expires_in):
                self._accepted = True
                outputs.append(SessionStarted(self._session_info(), expires_in))
            case StreamQuiet():
                outputs += self._replies.end_tool_calls()
            case Flush():
                """What is to be told follows below."""
            case StreamIdle() if self._may_stay_unused():
                """Its history can still be added to."""
            case StreamIdle():
                self._sent_samples += round(IDLE_S * self._config.input_sample_rate)
                self._pending += self._start_audio()
                silence = np.zeros(self._config.input_sample_rate * SILENCE_MS // 1000, np.int16)
                self._pending += self._sequence.audio(silence)
                self._expire_request()
            case _:
                outputs += self.blocks.decode(message)
                if any(isinstance(one, ReplyInterrupted) for one in outputs):
                    self._interrupted_at = self._sent_samples
                if self._may_be_spoken_over and any(
                    isinstance(one, UserTranscript) for one in outputs
                ):
                    # Late words of a turn before the text have no sound since, and do not count.
                    self._refuse_pending("interrupted", "the person spoke before it was answered")
        last = self._replies.last
        if last is not None and last.samples and last.id != self._playing_reply_id:
            self._playing_reply_id, self._playing_since = last.id, self._sent_samples
        self._pending += self._next_text()
        outputs += self._refusals
        self._refusals.clear()
        return outputs

    def pending(self) -> Sequence[Message]:
        """What the codec itself has to send, each once."""
        pending, self._pending = self._pending, []
        return pending

    def closing_messages(self) -> Sequence[Message]:
        """The end of the sound, of the prompt and of the session."""
        return self._sequence.end()

    def _session_info(self) -> dict[str, Json]:
        config = self._config
        told: dict[str, Json] = {
            "model": config.model,
            "region": config.region,
            "voice": config.voice,
            "maxTokens": config.max_tokens,
            "temperature": config.temperature,
            "topP": config.top_p,
        }
        if self._generation.has_endpointing:
            told["endpointingSensitivity"] = config.endpointing.upper()
        return told

    def _may_stay_unused(self) -> bool:
        """Whether the next stream may go on waiting to be used, without any sound."""
        if not self._accepted or self._sequence.stage is not Stage.STARTED:
            return False
        self._unused_idles += 1
        return self._unused_idles < MAX_UNUSED_IDLES

    def _start_audio(self) -> Sequence[Message]:
        if self._sequence.stage is not Stage.STARTED:
            return ()
        history, self._history = self._history, []
        said = [one.id for one in history if isinstance(one, AgentItem)]
        self._last_history_item = said[-1] if said else ""
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
                """What was spoken it has heard itself, and of its tools it knows."""

    def _truncate(self, item_id: str, heard: str) -> Sequence[Message]:
        """An item is to be what was heard of it, or nothing."""
        if self._sequence.stage is Stage.STARTED:
            self._truncate_history(item_id, heard)
            return ()
        reply = self._replies.by_item(item_id)
        if reply is not None:
            reply.interrupted = True
            self._unreported_cut = item_id, heard
        elif item_id == self._last_history_item and self._replies.last is None:
            # It went on sounding when this stream took over.
            self._unreported_cut = item_id, heard
        return self._drop_queue()

    def _truncate_history(self, item_id: str, heard: str) -> None:
        index = next((i for i, one in enumerate(self._history) if one.id == item_id), None)
        item = None if index is None else self._history[index]
        if index is not None and isinstance(item, AgentItem) and heard:
            self._history[index] = AgentItem(item_id, heard, "cut", item.played_ms)
        elif index is not None:
            del self._history[index]

    def _drop_queue(self) -> Sequence[Message]:
        """Somebody has interrupted: what was asked for before that is not wanted any more."""
        if not self._queue:
            return ()
        for one in self._queue:
            message = "it was interrupted before it was sent"
            self._refusals.append(ReplyRefused(one.request.request_id, "interrupted", message))
            self._user_texts += one.content
        self._queue.clear()
        return [Flush()]

    def _add_note(self, note: str) -> None:
        self._notes = [*self._notes, note][-_MAX_NOTES:]

    def _take_user_texts(self) -> list[str]:
        """What was written to be answered next."""
        while self._sequence.stage is Stage.STARTED and self._history:
            match self._history[-1]:
                case UserItem(text=text):
                    # What is to be answered comes by itself; as history it would not be.
                    self._user_texts[:0] = [text] if text else []
                    self._history.pop()
                case _:
                    break
        words, self._user_texts = self._user_texts, []
        return words

    def _compose(self, user_texts: Sequence[str], instructions: str | None) -> str:
        """A text of all that the model is to know now, and what it is for."""
        parts = [*self._notes, *self._take_heard_note(), *user_texts]
        if instructions:
            parts.append(_INSTRUCTIONS_NOTE.format(instructions))
        elif not user_texts:
            parts.append(_CONTINUE_PROMPT)
        self._notes = []
        return "\n".join(parts)

    def _take_heard_note(self) -> Sequence[str]:
        """What was heard of the newest reply, if the service takes it for heard."""
        cut, self._unreported_cut = self._unreported_cut, None
        last = self._replies.last
        if cut is None:
            return ()
        if last is not None and (
            last.item_id != cut[0] or last.interrupted_by_service or not last.samples
        ):
            return ()
        return [
            _HEARD_NOTE.format(json.dumps(cut[1], ensure_ascii=False) if cut[1] else _NOTHING_HEARD)
        ]

    def _enqueue(self, text: _QueuedText) -> Sequence[Message]:
        if not self._generation.accepts_text:
            message = f"{self._config.model} replies to speech only: use amazon.nova-2-sonic-v1:0"
            request_id = text.request.request_id
            self._refusals.append(ReplyRefused(request_id, "unsupported", message))
            return [Flush()]
        self._queue.append(text)
        return self._next_text()

    def _next_text(self) -> Sequence[Message]:
        """The next text that waits, if it may be sent now."""
        if not self._queue or self._is_busy():
            return ()
        due = self._queue.popleft()
        self._replies.pending_request = due.request
        self._requested_at = self._sent_samples
        self._may_be_spoken_over = False
        self.blocks.sent_text = due.text
        return [*self._start_audio(), *self._sequence.text(due.text)]

    def _is_busy(self) -> bool:
        """The last text is not answered, the newest reply is still being played, it seems, or the
        person may be speaking.
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
        length = last.samples / self._config.output_sample_rate
        return (
            not last.finished
            or self._seconds_since(self._playing_since) < length + PLAYBACK_GRACE_S
        )

    def _expire_request(self) -> bool:
        """Whether the last text waits for too long: the service has dropped it, and tells nobody.

        It does so when the person speaks, or coughs, before it has begun to answer.
        """
        if (
            self._replies.pending_request is None
            or self._seconds_since(self._requested_at) < REPLY_TIMEOUT_S
        ):
            return False
        self._refuse_pending("unanswered", "the service has not answered it")
        return True

    def _refuse_pending(self, code: str, message: str) -> None:
        """What was sent is not answered any more: the next reply is not that."""
        asked, self._replies.pending_request = self._replies.pending_request, None
        self._may_be_spoken_over = False
        if asked is not None:
            self._refusals.append(ReplyRefused(asked.request_id, code, message, busy=True))

    def _seconds_since(self, sent: int) -> float:
        return (self._sent_samples - sent) / self._config.input_sample_rate

    def _send_result(self, command: SendToolResult) -> Sequence[Message]:
        output = command.output
        if self._sequence.has_call(command.call_id):
            return self._sequence.tool_result(
                command.call_id, _result_json(output, failed=command.failed)
            )
        if not self._generation.accepts_text:
            return ()
        # Called on a connection that is gone: this one was told of it in its history.
        note = tool_note(command.name, "…", output, failed=command.failed)
        return self._enqueue(
            _QueuedText(TextRequest(uuid4().hex), self._compose([note], None), [note])
        )


def _is_loud(samples: Samples) -> bool:
    if not len(samples):
        return False
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float32)))) > LOUD_RMS


def _result_json(output: str, *, failed: bool) -> str:
    """A result as the service takes it: the JSON text of an object."""
    if not failed:
        try:
            if isinstance(json.loads(output), dict):
                return output
        except (ValueError, RecursionError):
            """Text that is no JSON, or JSON that is nested too deep."""
    return json.dumps({"error" if failed else "result": output}, ensure_ascii=False)
