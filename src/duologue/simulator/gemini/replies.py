"""The model's side of a session: its turns, the functions that it calls, and what stops it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from duologue.audio import Samples
from duologue.clock import Clock, Timer
from duologue.items import Json, ToolResultItem
from duologue.realtime.session import Realtime
from duologue.simulator.brain_link import BrainLink
from duologue.simulator.fields import Object, flag_at, new_id, objects_at, read_json, text_at
from duologue.simulator.gemini.answer import Answer, Call, Emit, content
from duologue.simulator.gemini.conversation import Conversation, Cost, for_brain, text_tokens
from duologue.simulator.gemini.schema import IN_RATE
from duologue.simulator.gemini.setup import GENERAL, Setup
from duologue.simulator.gemini.shapes import POLICY, RefusedError
from duologue.simulator.verbatim import asked_verbatim

REASONS = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "RESPONSE_REJECTED",
        "NEED_MORE_INPUT",
        "PROHIBITED_INPUT_CONTENT",
        "INPUT_OTHER",
        "BLOCKLIST",
        "GENERATED_CONTENT_SAFETY",
        "GENERATED_AUDIO_SAFETY",
        "GENERATED_OTHER",
        "MAX_REGENERATION_REACHED",
    }
)
"""Why a turn is over that is not whole; anything else is RESPONSE_REJECTED."""

PATIENCE_S = 0.5
"""Seconds in which the results of its functions may continue a turn before it is complete.

The service was recorded to continue a turn whose results came at once; clients that wait for its
end before they call anything are served, too, and so it must end.
"""

MOST_CALLS = 256
"""Calls without an answer at once."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A call that the client has not answered."""

    call: Call
    blocking: bool


class Replies:
    """Makes the model's turns of what the brain answers, one at a time."""

    def __init__(
        self,
        brain: Realtime,
        conversation: Conversation,
        emit: Emit,
        clock: Clock,
        *,
        pace: float,
        paraphrase: bool,
    ) -> None:
        self.setup = Setup({})
        self.conversation = conversation
        self._emit = emit
        self._clock = clock
        self._pace = pace
        self._paraphrase = paraphrase
        self.link = BrainLink(brain, self, clock, rate=IN_RATE)
        self.active: Answer | None = None
        self._asked = ""
        self._wanted = False
        self._playing: Timer | None = None
        self._pending: dict[str, Pending] = {}
        self._over: set[str] = set()
        self.user_speaks: Callable[[], bool] = lambda: False
        self.changed: Callable[[], None] = lambda: None
        """Is told when `idle` has changed, and at the end of every turn."""

    @property
    def idle(self) -> bool:
        """Nothing is generated, and no function is running."""
        return self.active is None and not self._pending

    def want(self) -> None:
        """Have the model speak: now, or when its turn is over."""
        if self.active is not None:
            self._wanted = True
        else:
            self._begin()

    def interrupt(self) -> None:
        """Stop the model's turn, if it has one, and what it waits for."""
        answer = self.active
        self._wanted = False
        if answer is not None:
            self._stop(answer)
            self._emit(*content("interrupted", True))
        ids: list[Json] = [name for name, one in self._pending.items() if one.blocking]
        for name in ids:
            call = self._pending[str(name)].call
            self._forget(call.id)
            self.link.add(ToolResultItem(new_id("item"), call.brain_id, "cancelled", failed=True))
        if ids:
            self._emit("toolCallCancellation", {"toolCallCancellation": {"ids": ids}})
        if answer is not None:
            self._complete(answer)

    def close(self) -> None:
        """Nothing happens any more."""
        if self.active is not None:
            self._stop(self.active)
            self.active = None

    def restore(self, contents: list[Object]) -> None:
        """Tell the brain what was said before it was there."""
        for one in contents:
            for item in for_brain(one, {}):
                self.link.add(item)
            called = [text_at(part, "functionCall", "id") for part in objects_at(one, "parts")]
            self._over.update(name for name in called if name)

    def respond(self, responses: list[Object]) -> None:
        """The client's functions have answered. Raises `RefusedError`."""
        answered = [(self._found(one), one) for one in responses]
        ask = interrupt = False
        for pending, response in answered:
            if pending is None:
                continue
            self._put(pending, response)
            if not pending.blocking:
                scheduling = text_at(response, "scheduling")
                ask = ask or scheduling != "SILENT"
                interrupt = interrupt or scheduling == "INTERRUPT"
        if any(one is not None and one.blocking for one, _ in answered):
            if self.active is not None:
                self._go_on()
            elif not self._waits:
                ask = True  # The turn with the call is complete: the result begins another one.
        if interrupt:
            self.interrupt()
        if ask and not self.user_speaks():
            self.want()
        self.changed()

    # Answering: what the brain does

    def answer_text(self, answer_id: str, text: str, brain_id: str) -> None:
        """The next words."""
        if self.active is not None and answer_id == self._asked and text:
            self.active.say(text)

    def answer_audio(self, answer_id: str, samples: Samples) -> None:
        """The next sound."""
        if self.active is not None and answer_id == self._asked:
            self.active.speak(samples)

    def answer_call(self, answer_id: str, call_id: str, name: str, arguments: str) -> None:
        """A function is called."""
        if self.active is not None and answer_id == self._asked:
            try:
                args = read_json(arguments or "{}")
            except ValueError:
                args = None
            if isinstance(args, dict):
                self.active.call(Call(new_call_id(), name, args, call_id))
            else:
                self.answer_ended(answer_id, "MALFORMED_FUNCTION_CALL", f"{name} has no arguments")

    def answer_ended(self, answer_id: str, code: str, message: str | None) -> None:
        """It is whole, or has failed."""
        answer = self.active
        if answer is None or answer_id != self._asked:
            return
        self._asked = ""
        if message is None:
            answer.finish()
            return
        known = [word for word in (code.upper(), message) if word in REASONS]
        self._stop(answer)
        self._complete(answer, reason=known[0] if known else "RESPONSE_REJECTED")

    def _begin(self) -> None:
        self._wanted = False
        compression = self.setup.compression
        if compression is not None:
            self.conversation.compress(compression)
        answer = self.active = Answer(
            self._emit,
            self._clock,
            self._sent,
            self.conversation.cost + self._given(),
            rate=self.link.brain.profile.output_rate,
            text=self.setup.text,
            words=self.setup.said_words,
            pace=self._pace,
            vertex=self.setup.vertex,
            thinks=self.setup.thinks,
        )
        self.changed()
        self._ask(answer)

    def _ask(self, answer: Answer) -> None:
        answer.begin()
        self._asked = new_id("ask")
        said = self.conversation.last_said()
        self.link.ask(self._asked, None, None if self._paraphrase else asked_verbatim(said))

    def _go_on(self) -> None:
        """Go on with the turn once all functions have answered that it waits for."""
        if self.active is not None and not self._waits and not self._asked:
            self._stop_timer()
            self._ask(self.active)

    @property
    def _waits(self) -> bool:
        """Whether the model waits for the result of a function."""
        return any(one.blocking for one in self._pending.values())

    def _sent(self, answer: Answer) -> None:
        """All that was made has been sent."""
        if answer is not self.active:
            return
        if self._tell_calls(answer):
            if self.setup.rules.completes_calls:
                seconds = 0.0 if self.setup.vertex else PATIENCE_S
                when = self._clock.now() + seconds
                self._playing = self._clock.call_at(when, lambda: self._generated(answer))
            return
        self._generated(answer)

    def _generated(self, answer: Answer) -> None:
        """End the generation of this turn; it is complete when it has been played."""
        self._keep(answer)
        self._emit(*content("generationComplete", True))
        self._playing = self._clock.call_at(
            max(answer.ends_at, self._clock.now()), lambda: self._complete(answer)
        )

    def _tell_calls(self, answer: Answer) -> bool:
        """Tell the client what to call; True when the turn waits for it."""
        calls, answer.calls = answer.calls, []
        if not calls:
            return False
        told: list[Json] = []
        parts = answer.take_parts()
        blocks = False
        for call in calls[:MOST_CALLS]:
            blocking = self.setup.behavior(call.name) == "BLOCKING"
            blocks = blocks or blocking
            self._pending[call.id] = Pending(call, blocking)
            one: Object = {"id": call.id, "name": call.name, "args": call.args}
            told.append(one)
            parts.append({"functionCall": dict(one)})
        cost = text_tokens(orjson.dumps(told).decode())
        answer.spend(Cost(text=cost))
        self.conversation.add("model", parts, Cost(text=cost))
        self._emit("toolCall", {"toolCall": {"functionCalls": told}})
        self.changed()
        return blocks

    def _stop(self, answer: Answer) -> None:
        self._stop_timer()
        asked, self._asked = self._asked, ""
        answer.cut()
        self._keep(answer)
        if asked:
            self.link.stop(asked)

    def _stop_timer(self) -> None:
        if self._playing is not None:
            self._playing.cancel()
            self._playing = None

    def _keep(self, answer: Answer) -> None:
        """What was sent is what the model remembers."""
        parts = answer.take_parts()
        if parts:
            self.conversation.add("model", parts, answer.cost)

    def _complete(self, answer: Answer, reason: str = "") -> None:
        self._playing = None
        self.active = None
        told: Object = {"turnComplete": True}
        if reason:
            told["turnCompleteReason"] = reason
        rules = self.setup.rules
        if self.setup.vertex:
            told["groundingMetadata"] = {}
        if rules.status:
            goes_on = self._wanted or (rules.thinks_on and bool(self._pending))
            told["interactionStatus"] = "IN_PROGRESS" if goes_on else "IDLE"
        self._emit(
            "serverContent.turnComplete",
            {"serverContent": told, "usageMetadata": _usage(answer, self.setup)},
        )
        if self._wanted:
            self._begin()
        else:
            self.changed()

    def _given(self) -> Cost:
        """What the model is told before anything is said."""
        told = text_tokens(self.setup.system_instruction)
        declared = self.setup.declarations
        return Cost(text=told + (text_tokens(orjson.dumps(declared).decode()) if declared else 0))

    def _found(self, response: Object) -> Pending | None:
        """The call that is answered; None for one that is over. Raises `RefusedError`."""
        name = text_at(response, "id")
        if not name:
            by_name = [
                key
                for key, one in self._pending.items()
                if one.call.name == text_at(response, "name")
            ]
            if not self.setup.vertex or not by_name:
                raise RefusedError(GENERAL)
            name = by_name[0]
        if name in self._over:
            return None
        found = self._pending.get(name)
        if found is None:
            raise RefusedError("Requested entity was not found.", POLICY)
        return found

    def _put(self, pending: Pending, response: Object) -> None:
        call = pending.call
        if pending.blocking or not flag_at(response, "willContinue"):
            self._forget(call.id)
        output = orjson.dumps(response.get("response") or {}).decode()
        part: Object = {"functionResponse": {**response, "id": call.id, "name": call.name}}
        self.conversation.add("user", [part], Cost(text=text_tokens(output)))
        self.link.add(ToolResultItem(new_id("item"), call.brain_id, output))

    def _forget(self, name: str) -> None:
        self._pending.pop(name, None)
        self._over.add(name)


def new_call_id() -> str:
    """Return an id as the service makes them: longer than other services accept."""
    return f"function-call-{secrets.randbelow(10**20):020}"


def _usage(answer: Answer, setup: Setup) -> Object:
    prompt, response = answer.prompt, answer.cost
    untold = 1 + setup.rules.untold_tokens
    given, made = round(prompt.total * untold), round(response.total * untold)
    name = "candidates" if setup.vertex else "response"
    usage: Object = {
        "promptTokenCount": given,
        f"{name}TokenCount": made,
        "totalTokenCount": given + made,
        "promptTokensDetails": prompt.details(),
        f"{name}TokensDetails": response.details(),
    }
    if answer.thoughts:
        usage["thoughtsTokenCount"] = answer.thoughts
    return usage
