"""The responses of one session: asked for, at most one in the conversation, cancelled, ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from duologue.audio import Samples
from duologue.clock import Clock
from duologue.items import Json
from duologue.realtime.commands import Truncate
from duologue.realtime.session import Realtime
from duologue.simulator.brain_link import BrainLink
from duologue.simulator.fields import Object, inside, objects_at, text_at
from duologue.simulator.openai.answer import Answer, Voice, Wanted
from duologue.simulator.openai.configuration import SessionObject, check_modalities
from duologue.simulator.openai.conversation import Conversation, words_of
from duologue.simulator.openai.dialect import Emit
from duologue.simulator.openai.schema import RATE
from duologue.simulator.openai.shapes import RefusedError
from duologue.simulator.verbatim import asked_verbatim

MOST_OUT_OF_BAND = 16
"""Responses beside the conversation at once."""

_TOKENS_A_MINUTE = 15_000_000


class Responses:
    """Makes responses of what the brain answers."""

    answer_type: type[Answer] = Answer
    """What responses are made of; set by a dialect."""

    def __init__(
        self,
        brain: Realtime,
        configuration: SessionObject,
        conversation: Conversation,
        emit: Emit,
        voice: Voice,
        clock: Clock,
        *,
        paraphrase: bool,
        rate: int = RATE,
    ) -> None:
        self._configuration = configuration
        self._conversation = conversation
        self._emit = emit
        self._voice = voice
        self._paraphrase = paraphrase
        self._running: dict[str, Answer] = {}
        self._used = 0
        """Tokens of all responses so far."""
        self.link = BrainLink(brain, self, clock, rate=rate)
        self.on_end: Callable[[Answer], None] = lambda _: None
        self.spoken = False
        """The model has spoken in this session."""

    @property
    def active(self) -> Answer | None:
        """The response that is under way in the conversation."""
        return next((answer for answer in self._running.values() if answer.in_band), None)

    @property
    def pending(self) -> bool:
        """Some response is under way."""
        return bool(self._running)

    def create(self, params: Json) -> None:
        """Begin a response, as ``response.create`` (``params`` None: nobody's) wants it.

        Raises `RefusedError` when one is under way.
        """
        wanted = self.wanted(params)
        active = self.active
        if wanted.conversation_id is not None and active is not None:
            raise self.busy(active)
        if len(self._running) > MOST_OUT_OF_BAND:
            raise RefusedError("rate_limit_exceeded", "Too many responses at once.")
        answer = self.begin(wanted)
        text = None
        if wanted.instructions and not self._paraphrase:
            text = asked_verbatim(wanted.instructions)
        self.link.ask(answer.id, _with_input(wanted.instructions, params), text)

    def begin(self, wanted: Wanted) -> Answer:
        """A new response, told to the client and to nobody else."""
        answer = self.answer_type(
            wanted,
            self._emit,
            self._conversation,
            self._voice,
            self.input_tokens(),
            rate=self.link.brain.profile.output_rate,
        )
        reasoning = self._configuration.reasoning_tokens
        if reasoning is not None:
            answer.reasoning = reasoning
            answer.words += reasoning
        self._running[answer.id] = answer
        answer.begin()
        return answer

    def cancel(
        self, reason: Literal["turn_detected", "client_cancelled"], response_id: str | None = None
    ) -> None:
        """End a response early. Raises `RefusedError` when there is none."""
        answer = self.active if response_id is None else self._running.get(response_id)
        if answer is None:
            raise self.nothing_active()
        self._end(answer, "cancelled", {"type": "cancelled", "reason": reason})
        self.link.stop(answer.id)

    def close(self) -> None:
        """Stop all responses."""
        self._running.clear()
        self._voice.close()

    def fail(self, code: str, message: str) -> None:
        """End all that is under way, because the brain is gone."""
        for answer in [*self._running.values()]:
            self.answer_ended(answer.id, code, message)

    # Answering: what the brain does

    def answer_text(self, answer_id: str, text: str, brain_id: str) -> None:
        """The next words."""
        answer = self._running.get(answer_id)
        if answer is not None and text:
            if self._configuration.reasoning_tokens is not None:
                answer.phase = "commentary" if self.link.calls_follow else "final_answer"
            answer.say(text)
            self._conversation.brain_ids[answer.item_id] = brain_id
            self._limit(answer)

    def answer_audio(self, answer_id: str, samples: Samples) -> None:
        """The next sound."""
        answer = self._running.get(answer_id)
        if answer is not None:
            answer.speak(samples)
            self.spoken = self.spoken or answer.samples > 0
            self._limit(answer)

    def answer_call(self, answer_id: str, call_id: str, name: str, arguments: str) -> None:
        """A function is called."""
        answer = self._running.get(answer_id)
        if answer is not None:
            answer.call(call_id, name, arguments)

    def answer_ended(self, answer_id: str, code: str, message: str | None) -> None:
        """It is whole, or has failed."""
        answer = self._running.get(answer_id)
        if answer is None:
            return
        if message is None:
            self._end(answer, "completed", None)
        else:
            error: Object = {"type": "server_error", "code": code, "message": message}
            self._end(answer, "failed", {"type": "failed", "error": error})

    def cut(self, item_id: str, end_ms: int, heard: str) -> None:
        """An item was cut: let the brain know."""
        brain_id = self._conversation.brain_ids.get(item_id, item_id)
        self.link.edit(Truncate(brain_id, end_ms, heard))

    def _limit(self, answer: Answer) -> None:
        limit = answer.wanted.limit
        if limit is not None and answer.tokens > limit and not answer.over:
            details: Object = {"type": "incomplete", "reason": "max_output_tokens"}
            self._end(answer, "incomplete", details)
            self.link.stop(answer.id)

    def _end(
        self,
        answer: Answer,
        status: Literal["completed", "cancelled", "failed", "incomplete"],
        details: Json,
    ) -> None:
        self._running.pop(answer.id, None)
        answer.end(status, details)
        self._used += answer.tokens + sum_of(answer.input_tokens)
        self.tell_limits()
        self.on_end(answer)

    def busy(self, active: Answer) -> RefusedError:
        """The refusal of a response beside the active one."""
        return RefusedError(
            "conversation_already_has_active_response",
            "Conversation already has an active response in progress: "
            f"{active.id}. Wait until the response is finished before creating a new one.",
        )

    def nothing_active(self) -> RefusedError:
        """The refusal to cancel where there is nothing."""
        return RefusedError(
            "response_cancel_not_active", "Cancellation failed: no active response found"
        )

    def wanted(self, params: Json) -> Wanted:
        """What a response is to be, as ``response.create`` (None: nobody's) wants it."""
        check_modalities(inside(params, "output_modalities"), "response.output_modalities")
        configured = self._configuration.value
        modalities = inside(params, "output_modalities") or configured["output_modalities"]
        output = inside(configured, "audio", "output")
        own = inside(params, "audio", "output")
        voice = inside(own, "voice")
        if self.spoken and voice is not None and voice != inside(output, "voice"):
            raise RefusedError(
                "cannot_update_voice",
                "Cannot update a conversation's voice if assistant audio is present.",
                "response.audio.output.voice",
            )
        limit = inside(params, "max_output_tokens") or configured["max_output_tokens"]
        band = text_at(params, "conversation") != "none"
        return Wanted(
            conversation_id=self._conversation.id if band else None,
            modality="text" if modalities == ["text"] else "audio",
            audio_format=inside(own, "format") or inside(output, "format"),
            voice=voice or inside(output, "voice"),
            limit=limit if isinstance(limit, int) else None,
            metadata=inside(params, "metadata"),
            instructions=text_at(params, "instructions") or None,
        )

    def tell_limits(self) -> None:
        """Tell how much of the account's limits is left, where that is told."""
        # The minute begins with the session.
        used = min(self._used, _TOKENS_A_MINUTE)
        tokens: Object = {
            "name": "tokens",
            "limit": _TOKENS_A_MINUTE,
            "remaining": _TOKENS_A_MINUTE - used,
            "reset_seconds": round(60.0 * used / _TOKENS_A_MINUTE, 3),
        }
        self._emit("rate_limits.updated", {"rate_limits": [tokens]})

    def input_tokens(self) -> Object:
        """A count of what the model is given: a token is 4 letters or 100 ms; an image is 765."""
        conversation = self._conversation
        text, audio, images = len(self._configuration.instructions) // 4, 0, 0
        for item in conversation.items:
            text += (len(text_at(item, "arguments")) + len(text_at(item, "output"))) // 4
            for part in objects_at(item, "content"):
                match part["type"]:
                    case "input_audio" | self.answer_type.dialect.audio:
                        audio += conversation.audio_ms.get(text_at(item, "id"), 0) // 100
                    case "input_image":
                        images += 765
                    case _:
                        text += len(text_at(part, "text")) // 4
        return {"text_tokens": text, "audio_tokens": audio, "image_tokens": images}


def sum_of(counts: Object) -> int:
    """Return the sum of the numbers in an object."""
    return sum(count for count in counts.values() if isinstance(count, int))


def _with_input(instructions: str | None, params: Json) -> str | None:
    """The instructions, and below them what else the response is to be based on."""
    lines = [
        f"{text_at(item, 'role') or text_at(item, 'type')}: {words_of(item)}"
        for item in objects_at(params, "input")
        if words_of(item)
    ]
    return "\n".join([*([instructions] if instructions else []), *lines]) or None
