"""Gemini Live messages to and from the session's commands and outputs, without a socket."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import assert_never

from duologue.extras import require
from duologue.items import Json
from duologue.providers.gemini.activity import Activity
from duologue.providers.gemini.answers import Answers, Asked
from duologue.providers.gemini.config import LiveConfig, ManualTurns
from duologue.providers.gemini.contents import instruction_note
from duologue.providers.gemini.context import Context, interrupts, picture_message
from duologue.providers.gemini.decoder import Decoder
from duologue.providers.gemini.models import traits_of
from duologue.providers.gemini.profile import INPUT_RATE
from duologue.providers.gemini.resumption import Resumption, Said
from duologue.providers.gemini.setup_json import setup_message, update_message
from duologue.providers.gemini.sound import sound_message
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
)

require("orjson", "gemini")

from duologue.providers.json_text import encode_object  # noqa: E402

type JsonObject = dict[str, Json]


class Codec:
    """A `duologue.realtime.codec.Codec` for one connection; a new connection takes a new one.

    ``model`` is its full name; ``resumption`` is the session's, ``transparent`` is for Vertex AI.
    """

    def __init__(
        self,
        config: LiveConfig,
        resumption: Resumption,
        *,
        model: str,
        told_cuts: bool = True,
        transparent: bool = False,
        extra: Mapping[str, Json] | None = None,
    ) -> None:
        self._config = config
        self._traits = traits_of(config.model)
        self._resumption = resumption
        self._model = model
        self._told_cuts = told_cuts
        self._transparent = transparent
        self._extra = extra or {}
        manual = isinstance(config.turn_detection, ManualTurns)
        self._activity = Activity(INPUT_RATE) if manual else None
        self._answers = Answers(transcribed=config.output_transcription is not None)
        self._context = Context(self._traits, Said(), told_cuts=told_cuts)
        self._decoder = Decoder(
            self._traits, resumption, self._answers, self._context, self._activity
        )
        self._seed: list[JsonObject] = []
        self._pending: list[bytes] = []

    @property
    def resuming(self) -> bool:
        """It asks the server to go on with an older session, which has not answered yet."""
        return self._decoder.restored and not self._decoder.started

    @property
    def started(self) -> bool:
        """The session is there."""
        return self._decoder.started

    @property
    def awaits_answer(self) -> bool:
        """The program has ended a turn, and it is not answered yet."""
        return self._activity is not None and self._activity.awaits_answer

    @property
    def restored(self) -> bool:
        """It has asked for that, or goes on with one."""
        return self._decoder.restored

    @property
    def unknown(self) -> Counter[str]:
        """Messages that are not of the protocol, counted by name."""
        return self._decoder.unknown

    @property
    def malformed(self) -> int:
        """How much was not built as the protocol says."""
        return self._decoder.malformed

    def open(self, setup: SessionSetup) -> Sequence[bytes]:
        """The setup alone: the server takes nothing else before it has answered that."""
        handle = self._resumption.take()
        since: Sequence[AddItem | DeleteItem | Truncate] = ()
        if handle is not None:
            since = handle.since(setup.history, cuts=self._told_cuts)
            if not self._traits.free_context and any(isinstance(one, AddItem) for one in since):
                handle = None  # What was said since could not be told any more.
        self._decoder.restored = handle is not None
        if handle is None:
            self._seed = self._context.seed(setup.history)
        else:
            self._context.said = Said(handle.said)
            for change in since:
                self._edit(change)
        self._context.tools(setup.tools)
        message = setup_message(
            self._config,
            setup,
            model=self._model,
            handle=None if handle is None else handle.value,
            transparent=self._transparent,
            seeded=bool(self._seed),
            extra=self._extra,
        )
        self._decoder.asked = message["setup"]
        return [encode_object(message)]

    def encode(self, command: Command) -> Sequence[bytes]:
        """The messages that carry a command, behind what is to be told before them."""
        before, self._pending = self._pending, []
        match command:
            case SendAudio(frame=frame):
                self._answers.sent_sound(frame)
                return [*before, *self.pending(), *self._sound(frame.to_bytes(), len(frame))]
            case SendVideo(jpeg=jpeg, now=now):
                messages = []
                if jpeg is not None:
                    messages = self._context.look(jpeg) if now else [picture_message(jpeg)]
            case EndTurn():
                return [*before, *self._end_turn()]
            case ClearInput():
                if self._activity is not None:
                    self._activity.clear()
                return before
            case AddItem() | DeleteItem() | Truncate():
                self._edit(command)
                return before
            case RequestReply(request_id=request_id, instructions=instructions):
                told = None if instructions is None else instruction_note(instructions)
                return [*before, *self._request(Asked(request_id), told)]
            case Say(request_id=request_id, text=text):
                told = instructions_to_say(text)
                return [*before, *self._request(Asked(request_id, text), told)]
            case CancelReply(reply_id=reply_id):
                self._answers.cancel(reply_id)
                return [*before, *self._begin_activity()]
            case SendToolResult(more=more):
                messages = self._context.result(command)
                if not more:
                    self._answers.answered()
            case UpdateSession():
                messages = self._update(command)
            case Ping():
                messages = []  # The profile does not have ``answers_pings``.
            case _:
                assert_never(command)
        return [*before, *self._told(messages)]

    def decode(self, message: bytes) -> Sequence[Output]:
        """What a message means; one may carry several things."""
        outputs = self._decoder.decode(message)
        if self._decoder.started and self._seed:
            turns: list[Json] = [*self._seed]
            content: JsonObject = {"turns": turns, "turnComplete": self._traits.seeds}
            self._pending.append(encode_object({"clientContent": content}))
            self._seed = []
        return outputs

    def pending(self) -> Sequence[bytes]:
        """What the codec itself has to send, each once."""
        pending, self._pending = self._pending, []
        if self._decoder.started and self._context.waiting and not self._answers.busy:
            pending += self._told(self._context.flush())
        return pending

    def _told(self, messages: Sequence[JsonObject]) -> list[bytes]:
        if any(map(interrupts, messages)):
            self._answers.sent_context()
        return [encode_object(message) for message in messages]

    def _sound(self, pcm: bytes, samples: int) -> Sequence[bytes]:
        message = sound_message(pcm)
        if self._activity is None:
            return (message,)
        was_open = self._activity.is_open
        messages = self._activity.sound(message, samples, busy=self._answers.turn_open)
        if self._activity.is_open and not was_open:
            self._answers.sent_context()
        return messages

    def _begin_activity(self) -> Sequence[bytes]:
        """Begin a turn of the person, where the program does that; it interrupts the model."""
        if self._activity is None or self._activity.is_open:
            return ()
        self._answers.sent_context()
        return self._activity.begin()

    def _end_turn(self, *, anyway: bool = False) -> Sequence[bytes]:
        if self._activity is None:
            return ()
        messages = self._activity.end(anyway=anyway)
        if len(messages) > 1:
            self._answers.sent_context()
        return messages

    def _edit(self, change: AddItem | DeleteItem | Truncate) -> None:
        match change:
            case AddItem(item=item):
                self._context.add(item)
            case DeleteItem(item_id=item_id):
                self._answers.cut(item_id)
                self._context.cut(item_id, "")
            case Truncate(item_id=item_id, heard_text=heard):
                self._answers.cut(item_id)
                self._context.cut(item_id, heard)

    def _request(self, asked: Asked, text: str | None) -> Sequence[bytes]:
        messages = self._told(self._context.request(text))
        self._answers.ask(asked)
        if self._activity is None or self._traits.free_context:
            return messages
        # There text is a part of the turn that the program ends.
        return [*self._begin_activity(), *messages, *self._end_turn(anyway=True)]

    def _update(self, change: UpdateSession) -> list[JsonObject]:
        if change.tools is not None:
            self._context.tools(change.tools)
        if not self._traits.context_update:
            return []
        message = update_message(self._config, change, extra=self._extra)
        return [] if message is None else [message]
