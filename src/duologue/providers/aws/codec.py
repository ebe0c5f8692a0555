"""Nova Sonic's events to and from the session's commands and outputs, without a socket."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never
from uuid import uuid4

import numpy as np

from duologue.audio import Samples
from duologue.items import AgentItem, Item, Json, SystemItem, UserItem
from duologue.providers.aws.blocks import Blocks
from duologue.providers.aws.config import RealtimeConfig
from duologue.providers.aws.history import messages, tool_note
from duologue.providers.aws.messages import IDLE_S, Accepted, Idle, Message, Nudge, Quiet
from duologue.providers.aws.order import EventOrder, Stage
from duologue.providers.aws.profile import generation_of
from duologue.providers.aws.replies import Asked, Replies
from duologue.providers.spoken import instructions_to_say
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
LATE_S = 1.0
"""A reply that should have been played for so long is over, though nobody has told."""
ANSWERED_S = 10.0
"""A text that was not answered by then will not be."""
UNUSED = 4
"""`Idle`s after which the sound of a stream that is not used begins: the service ends one that has
heard nothing for 55 s, as its own error says."""
DECIDED_S = 1.0
"""Seconds without requests after the service stopped by itself: it has heard something, and
barge-in has to decide first what that was."""
LOUD = 300.0
"""RMS of int16 from which on a frame may be somebody's speech."""

_GO_ON = "[The person has said nothing new. Go on with the conversation.]"
_FOR_THIS = "[For your next reply, and not said by the person: {}]"
_HEARD = "[The person interrupted you, and has heard no more than: {}]"
_NOTHING = "nothing at all"
_MOST_NOTES = 16


@dataclass(frozen=True, slots=True)
class _Text:
    """A text that waits to be sent; ``words`` are what the model has to know of it in any case."""

    asked: Asked
    text: str
    words: Sequence[str] = ()


class Codec:
    """A `duologue.realtime.codec.Codec` for one connection; a new connection takes a new one.

    The history waits until the sound begins, since it can't be added to once it was sent. A text
    waits until the reply before it has been played, since the service takes it for an interruption.
    """

    def __init__(self, config: RealtimeConfig) -> None:
        self._config = config
        self._generation = generation_of(config.model)
        self._order = EventOrder(config)
        self._replies = Replies(config.output_sample_rate)
        self.blocks = Blocks(self._replies, self._order.called)
        self._history: list[Item] = []
        self._words: list[str] = []
        """What was written for the next text."""
        self._notes: list[str] = []
        """What the model is to know with it."""
        self._heard: tuple[str, str] | None = None
        """What was heard of which item, where the service has not noticed."""
        self._said_last = ""
        """The newest of the model's items in the history that was sent."""
        self._accepted = False
        self._unused = 0
        """How often this stream was idle before it was used."""
        self._waiting: deque[_Text] = deque()
        self._sent = 0
        """Samples of the person that were sent: the clock of this codec."""
        self._sounding = ""
        self._sounds_since = 0
        self._asked_since = 0
        self._stopped_at: int | None = None
        """Position in the input audio where the service stopped by itself."""
        self._spoken_over = False
        """Somebody may have spoken since the text was sent that is not answered yet."""
        self._pending: list[Message] = []
        self._refused: list[Output] = []

    def open(self, setup: SessionSetup) -> Sequence[Message]:
        """The beginning of the session; the history follows when it is needed."""
        self._history = list(setup.history)
        return self._order.begin(setup.instructions, setup.tools)

    def encode(self, command: Command) -> Sequence[Message]:
        """The messages that carry a command."""
        match command:
            case SendAudio(frame=frame):
                self._sent += len(frame)
                if self._replies.asked is not None and not self._spoken_over:
                    self._spoken_over = _loud(frame.samples)
                told = [Nudge()] if self._give_up() else []
                sound = self._order.audio
                return [*told, *self._start_sound(), *self._due(), *sound(frame.samples)]
            case AddItem(item=item):
                self._add(item)
                return ()
            case Truncate(item_id=item_id, heard_text=heard):
                return self._cut(item_id, heard)
            case DeleteItem(item_id=item_id):
                return self._cut(item_id, "")
            case CancelReply(reply_id=reply_id):
                cancelled = self._replies.cancel(reply_id)
                # Nothing was heard of it, unless it is told soon that something was.
                return self._cut(cancelled, "") if cancelled is not None else ()
            case RequestReply(request_id=request_id, instructions=instructions):
                words = self._asked_words()
                text = self._composed(words, instructions)
                return self._ask(_Text(Asked(request_id), text, words))
            case Say(request_id=request_id, text=text):
                return self._ask(_Text(Asked(request_id, text), instructions_to_say(text)))
            case SendToolResult():
                return self._result(command)
            case SendVideo() | EndTurn() | ClearInput() | UpdateSession() | Ping():
                return ()  # Its profile says that it can't.
            case _:
                assert_never(command)

    def decode(self, message: Message) -> Sequence[Output]:
        """What an event means, or what the wire tells."""
        outputs: list[Output] = []
        match message:
            case Accepted(expires_in=expires_in):
                self._accepted = True
                outputs.append(SessionStarted(self._told(), expires_in))
            case Quiet():
                outputs += self._replies.end_calls()
            case Nudge():
                """What is to be told follows below."""
            case Idle() if self._spared():
                """Its history can still be added to."""
            case Idle():
                self._sent += round(IDLE_S * self._config.input_sample_rate)
                self._pending += self._start_sound()
                silence = np.zeros(self._config.input_sample_rate * SILENCE_MS // 1000, np.int16)
                self._pending += self._order.audio(silence)
                self._give_up()
            case _:
                outputs += self.blocks.take(message)
                if any(isinstance(one, ReplyInterrupted) for one in outputs):
                    self._stopped_at = self._sent
                if self._spoken_over and any(isinstance(one, UserTranscript) for one in outputs):
                    # Late words of a turn before the text have no sound since, and do not count.
                    self._refuse("interrupted", "the person spoke before it was answered")
        last = self._replies.last
        if last is not None and last.samples and last.id != self._sounding:
            self._sounding, self._sounds_since = last.id, self._sent
        self._pending += self._due()
        outputs += self._refused
        self._refused.clear()
        return outputs

    def pending(self) -> Sequence[Message]:
        """What the codec itself has to send, each once."""
        pending, self._pending = self._pending, []
        return pending

    def farewell(self) -> Sequence[Message]:
        """The end of the sound, of the prompt and of the session."""
        return self._order.end()

    def _told(self) -> dict[str, Json]:
        config = self._config
        told: dict[str, Json] = {
            "model": config.model,
            "region": config.region,
            "voice": config.voice,
            "maxTokens": config.max_tokens,
            "temperature": config.temperature,
            "topP": config.top_p,
        }
        if self._generation.endpointing:
            told["endpointingSensitivity"] = config.endpointing.upper()
        return told

    def _spared(self) -> bool:
        """Whether the next stream may go on waiting to be used, without any sound."""
        if not self._accepted or self._order.stage is not Stage.BEGUN:
            return False
        self._unused += 1
        return self._unused < UNUSED

    def _start_sound(self) -> Sequence[Message]:
        if self._order.stage is not Stage.BEGUN:
            return ()
        history, self._history = self._history, []
        said = [one.id for one in history if isinstance(one, AgentItem)]
        self._said_last = said[-1] if said else ""
        return self._order.start_sound(messages(history, self._generation))

    def _add(self, item: Item) -> None:
        if self._order.stage is Stage.BEGUN:
            self._history.append(item)
            return
        match item:
            case UserItem(text=str(text), spoken=False):
                self._words.append(text)
            case SystemItem(text=text):
                self._note(f"[{text}]")
            case AgentItem(id=item_id, text=text) if self._replies.by_item(item_id) is None:
                self._note(f"[You have said: {text}]")
            case _:
                """What was spoken it has heard itself, and of its tools it knows."""

    def _cut(self, item_id: str, heard: str) -> Sequence[Message]:
        """An item is to be what was heard of it, or nothing."""
        if self._order.stage is Stage.BEGUN:
            self._cut_history(item_id, heard)
            return ()
        reply = self._replies.by_item(item_id)
        if reply is not None:
            reply.cut = True
            self._heard = item_id, heard
        elif item_id == self._said_last and self._replies.last is None:
            # It went on sounding when this stream took over.
            self._heard = item_id, heard
        return self._drop_waiting()

    def _cut_history(self, item_id: str, heard: str) -> None:
        index = next((i for i, one in enumerate(self._history) if one.id == item_id), None)
        item = None if index is None else self._history[index]
        if index is not None and isinstance(item, AgentItem) and heard:
            self._history[index] = AgentItem(item_id, heard, "cut", item.played_ms)
        elif index is not None:
            del self._history[index]

    def _drop_waiting(self) -> Sequence[Message]:
        """Somebody has interrupted: what was asked for before that is not wanted any more."""
        if not self._waiting:
            return ()
        for one in self._waiting:
            message = "it was interrupted before it was sent"
            self._refused.append(ReplyRefused(one.asked.request_id, "interrupted", message))
            self._words += one.words
        self._waiting.clear()
        return [Nudge()]

    def _note(self, note: str) -> None:
        self._notes = [*self._notes, note][-_MOST_NOTES:]

    def _asked_words(self) -> list[str]:
        """What was written to be answered next."""
        while self._order.stage is Stage.BEGUN and self._history:
            match self._history[-1]:
                case UserItem(text=text):
                    # What is to be answered comes by itself; as history it would not be.
                    self._words[:0] = [text] if text else []
                    self._history.pop()
                case _:
                    break
        words, self._words = self._words, []
        return words

    def _composed(self, words: Sequence[str], instructions: str | None) -> str:
        """A text of all that the model is to know now, and what it is for."""
        parts = [*self._notes, *self._cut_note(), *words]
        if instructions:
            parts.append(_FOR_THIS.format(instructions))
        elif not words:
            parts.append(_GO_ON)
        self._notes = []
        return "\n".join(parts)

    def _cut_note(self) -> Sequence[str]:
        """What was heard of the newest reply, if the service takes it for heard."""
        cut, self._heard = self._heard, None
        last = self._replies.last
        if cut is None:
            return ()
        if last is not None and (last.item_id != cut[0] or last.told_cut or not last.samples):
            return ()
        return [_HEARD.format(json.dumps(cut[1], ensure_ascii=False) if cut[1] else _NOTHING)]

    def _ask(self, text: _Text) -> Sequence[Message]:
        if not self._generation.text:
            message = f"{self._config.model} replies to speech only: use amazon.nova-2-sonic-v1:0"
            request_id = text.asked.request_id
            self._refused.append(ReplyRefused(request_id, "unsupported", message))
            return [Nudge()]
        self._waiting.append(text)
        return self._due()

    def _due(self) -> Sequence[Message]:
        """The next text that waits, if it may be sent now."""
        if not self._waiting or self._busy():
            return ()
        due = self._waiting.popleft()
        self._replies.asked = due.asked
        self._asked_since = self._sent
        self._spoken_over = False
        self.blocks.sent_text = due.text
        return [*self._start_sound(), *self._order.text(due.text)]

    def _busy(self) -> bool:
        """The last text is not answered, the newest reply is still being played, it seems, or the
        person may be speaking.
        """
        if self._replies.asked is not None:
            return True
        if self._stopped_at is not None and self._since(self._stopped_at) < DECIDED_S:
            return True
        last = self._replies.last
        if last is None or not last.playing:
            return False
        length = last.samples / self._config.output_sample_rate
        return not last.over or self._since(self._sounds_since) < length + LATE_S

    def _give_up(self) -> bool:
        """Whether the last text waits for too long: the service has dropped it, and tells nobody.

        It does so when the person speaks, or coughs, before it has begun to answer.
        """
        if self._replies.asked is None or self._since(self._asked_since) < ANSWERED_S:
            return False
        self._refuse("unanswered", "the service has not answered it")
        return True

    def _refuse(self, code: str, message: str) -> None:
        """What was sent is not answered any more: the next reply is not that."""
        asked, self._replies.asked = self._replies.asked, None
        self._spoken_over = False
        if asked is not None:
            self._refused.append(ReplyRefused(asked.request_id, code, message, busy=True))

    def _since(self, sent: int) -> float:
        return (self._sent - sent) / self._config.input_sample_rate

    def _result(self, command: SendToolResult) -> Sequence[Message]:
        output = command.output
        if self._order.knows(command.call_id):
            return self._order.result(command.call_id, _as_json(output, failed=command.failed))
        if not self._generation.text:
            return ()
        # Called on a connection that is gone: this one was told of it in its history.
        note = tool_note(command.name, "…", output, failed=command.failed)
        return self._ask(_Text(Asked(uuid4().hex), self._composed([note], None), [note]))


def _loud(samples: Samples) -> bool:
    if not len(samples):
        return False
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float32)))) > LOUD


def _as_json(output: str, *, failed: bool) -> str:
    """A result as the service takes it: the JSON text of an object."""
    if not failed:
        try:
            if isinstance(json.loads(output), dict):
                return output
        except (ValueError, RecursionError):
            """Text that is no JSON, or JSON that is nested too deep."""
    return json.dumps({"error" if failed else "result": output}, ensure_ascii=False)
