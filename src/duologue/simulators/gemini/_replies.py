"""The model's side of a session: its turns, its function calls, and interruptions."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Protocol

import orjson

from duologue.audio import Samples
from duologue.clock import Clock, Timer
from duologue.items import ToolResultItem
from duologue.json_types import Json, JsonObject
from duologue.realtime.realtime import Realtime
from duologue.simulators._backend_session import BackendObserver, BackendSession
from duologue.simulators._fields import (
    flag_at,
    new_id,
    objects_at,
    read_json,
    text_at,
)
from duologue.simulators._verbatim import quoted_verbatim
from duologue.simulators.gemini._conversation import (
    Conversation,
    Cost,
    backend_items,
    text_tokens,
)
from duologue.simulators.gemini._json_shapes import POLICY, RefusedError
from duologue.simulators.gemini._reply import Emit, FunctionCall, OutgoingReply, content_message
from duologue.simulators.gemini._schema import IN_RATE
from duologue.simulators.gemini._setup import INVALID_ARGUMENT, Setup

TURN_COMPLETE_REASONS = frozenset(
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
"""The known reasons of an incomplete turn; any other is sent as RESPONSE_REJECTED."""

RESULT_GRACE_S = 0.5
"""Seconds in which the results of its functions may continue a turn before it completes.

In recordings the service continues a turn whose results come at once. It also serves clients that
wait for the end of the turn before they call anything, so the turn must end.
"""

MAX_CALLS = 256
"""Function calls that may wait for their results."""


@dataclass(frozen=True, slots=True)
class PendingCall:
    """A function call that the client has not answered."""

    call: FunctionCall
    blocking: bool


class SessionHooks(BackendObserver, Protocol):
    """What the replies need of their session."""

    def is_user_speaking(self) -> bool:
        """Return whether the user's turn has begun and not ended."""

    def reply_state_changed(self) -> None:
        """`Replies.is_idle` has changed, or a turn has ended."""


class Replies:
    """Turns what the backend generates into turns of the model, one at a time."""

    def __init__(
        self,
        backend: Realtime,
        session: SessionHooks,
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
        self._session = session
        self.backend_session = BackendSession(backend, self, session, clock, rate=IN_RATE)
        self.active: OutgoingReply | None = None
        self._request_id = ""
        self._reply_queued = False
        self._completion_timer: Timer | None = None
        self._pending: dict[str, PendingCall] = {}
        self._finished_calls: set[str] = set()

    @property
    def is_idle(self) -> bool:
        """Whether no reply is being generated and no function is running."""
        return self.active is None and not self._pending

    def request_reply(self) -> None:
        """Have the model reply, now or after its current turn."""
        if self.active is not None:
            self._reply_queued = True
        else:
            self._start_reply()

    def interrupt(self) -> None:
        """Interrupt the model's turn, if there is one, and cancel the functions it waits for."""
        reply = self.active
        self._reply_queued = False
        if reply is not None:
            self._stop_reply(reply)
            self._emit(*content_message("interrupted", True))
        ids: list[Json] = [call_id for call_id, one in self._pending.items() if one.blocking]
        for call_id in ids:
            call = self._pending[str(call_id)].call
            self._finish_call(call.id)
            self.backend_session.add_item(
                ToolResultItem(new_id("item"), call.backend_call_id, "cancelled", failed=True)
            )
        if ids:
            self._emit("toolCallCancellation", {"toolCallCancellation": {"ids": ids}})
        if reply is not None:
            self._complete_turn(reply)

    def close(self) -> None:
        """Stop replying."""
        if self.active is not None:
            self._stop_reply(self.active)
            self.active = None

    def restore_history(self, contents: list[JsonObject]) -> None:
        """Add the history of a resumed session to the backend."""
        for content in contents:
            for item in backend_items(content, {}):
                self.backend_session.add_item(item)
            ids = [text_at(part, "functionCall", "id") for part in objects_at(content, "parts")]
            self._finished_calls.update(call_id for call_id in ids if call_id)

    def accept_tool_responses(self, responses: list[JsonObject]) -> None:
        """Accept the results of functions. Raises `RefusedError`."""
        answered = [(self._find_call(one), one) for one in responses]
        ask = interrupt = False
        for pending, response in answered:
            if pending is None:
                continue
            self._add_result(pending, response)
            if not pending.blocking:
                scheduling = text_at(response, "scheduling")
                ask = ask or scheduling != "SILENT"
                interrupt = interrupt or scheduling == "INTERRUPT"
        if any(one is not None and one.blocking for one, _ in answered):
            if self.active is not None:
                self._continue_turn()
            elif not self._awaits_results:
                ask = True  # The turn with the call is complete, so the result begins another one.
        if interrupt:
            self.interrupt()
        if ask and not self._session.is_user_speaking():
            self.request_reply()
        self._session.reply_state_changed()

    # ReplySink: called by the backend session

    def reply_text(self, reply_id: str, text: str, backend_item_id: str) -> None:
        """Add the next text of the reply."""
        if self.active is not None and reply_id == self._request_id and text:
            self.active.add_text(text)

    def reply_audio(self, reply_id: str, samples: Samples) -> None:
        """Add the next audio of the reply."""
        if self.active is not None and reply_id == self._request_id:
            self.active.add_audio(samples)

    def reply_tool_call(self, reply_id: str, call_id: str, name: str, arguments: str) -> None:
        """Add a function call."""
        if self.active is not None and reply_id == self._request_id:
            try:
                args = read_json(arguments or "{}")
            except ValueError:
                args = None
            if isinstance(args, dict):
                self.active.add_call(FunctionCall(new_call_id(), name, args, call_id))
            else:
                self.reply_finished(reply_id, "MALFORMED_FUNCTION_CALL", f"{name} has no arguments")

    def reply_finished(self, reply_id: str, code: str, message: str | None) -> None:
        """Complete the segment, or end the turn because the reply has failed."""
        reply = self.active
        if reply is None or reply_id != self._request_id:
            return
        self._request_id = ""
        if message is None:
            reply.end_segment()
            return
        known = [word for word in (code.upper(), message) if word in TURN_COMPLETE_REASONS]
        self._stop_reply(reply)
        self._complete_turn(reply, reason=known[0] if known else "RESPONSE_REJECTED")

    def _start_reply(self) -> None:
        self._reply_queued = False
        compression = self.setup.compression
        if compression is not None:
            self.conversation.compress(compression)
        reply = self.active = OutgoingReply(
            self._emit,
            self._clock,
            self._segment_sent,
            self.conversation.cost + self._setup_cost(),
            rate=self.backend_session.backend.capabilities.output_rate,
            text_only=self.setup.text_output,
            with_transcript=self.setup.transcribes_output,
            pace=self._pace,
            vertex=self.setup.vertex,
            sends_thoughts=self.setup.sends_thoughts,
        )
        self._session.reply_state_changed()
        self._request_segment(reply)

    def _request_segment(self, reply: OutgoingReply) -> None:
        reply.begin_segment()
        self._request_id = new_id("ask")
        user_text = self.conversation.last_user_text()
        self.backend_session.request_reply(
            self._request_id, None, None if self._paraphrase else quoted_verbatim(user_text)
        )

    def _continue_turn(self) -> None:
        """Continue the turn once all results that it waits for are there."""
        if self.active is not None and not self._awaits_results and not self._request_id:
            self._stop_timer()
            self._request_segment(self.active)

    @property
    def _awaits_results(self) -> bool:
        """Whether the model waits for the result of a function."""
        return any(one.blocking for one in self._pending.values())

    def _segment_sent(self, reply: OutgoingReply) -> None:
        """Send the function calls of the segment, or end the generation."""
        if reply is not self.active:
            return
        if self._send_calls(reply):
            if self.setup.rules.completes_turns_with_calls:
                seconds = 0.0 if self.setup.vertex else RESULT_GRACE_S
                when = self._clock.now() + seconds
                self._completion_timer = self._clock.call_at(
                    when, lambda: self._generation_complete(reply)
                )
            return
        self._generation_complete(reply)

    def _generation_complete(self, reply: OutgoingReply) -> None:
        """End the generation of this turn; it completes when its audio has been played."""
        self._remember_reply(reply)
        self._emit(*content_message("generationComplete", True))
        self._completion_timer = self._clock.call_at(
            max(reply.ends_at, self._clock.now()), lambda: self._complete_turn(reply)
        )

    def _send_calls(self, reply: OutgoingReply) -> bool:
        """Send the function calls and return whether the turn waits for a result."""
        calls, reply.calls = reply.calls, []
        if not calls:
            return False
        function_calls: list[Json] = []
        parts = reply.take_parts()
        blocks = False
        for call in calls[:MAX_CALLS]:
            blocking = self.setup.behavior(call.name) == "BLOCKING"
            blocks = blocks or blocking
            self._pending[call.id] = PendingCall(call, blocking)
            function_call: JsonObject = {"id": call.id, "name": call.name, "args": call.args}
            function_calls.append(function_call)
            parts.append({"functionCall": dict(function_call)})
        cost = text_tokens(orjson.dumps(function_calls).decode())
        reply.add_cost(Cost(text=cost))
        self.conversation.add("model", parts, Cost(text=cost))
        self._emit("toolCall", {"toolCall": {"functionCalls": function_calls}})
        self._session.reply_state_changed()
        return blocks

    def _stop_reply(self, reply: OutgoingReply) -> None:
        self._stop_timer()
        request_id, self._request_id = self._request_id, ""
        reply.cancel()
        self._remember_reply(reply)
        if request_id:
            self.backend_session.cancel_reply(request_id)

    def _stop_timer(self) -> None:
        if self._completion_timer is not None:
            self._completion_timer.cancel()
            self._completion_timer = None

    def _remember_reply(self, reply: OutgoingReply) -> None:
        """Add what was sent to the conversation, because that is what the model remembers."""
        parts = reply.take_parts()
        if parts:
            self.conversation.add("model", parts, reply.cost)

    def _complete_turn(self, reply: OutgoingReply, reason: str = "") -> None:
        self._completion_timer = None
        self.active = None
        server_content: JsonObject = {"turnComplete": True}
        if reason:
            server_content["turnCompleteReason"] = reason
        rules = self.setup.rules
        if self.setup.vertex:
            server_content["groundingMetadata"] = {}
        if rules.interaction_status:
            calls_run = rules.reports_background_calls and bool(self._pending)
            in_progress = self._reply_queued or calls_run
            server_content["interactionStatus"] = "IN_PROGRESS" if in_progress else "IDLE"
        self._emit(
            "serverContent.turnComplete",
            {"serverContent": server_content, "usageMetadata": _usage(reply, self.setup)},
        )
        if self._reply_queued:
            self._start_reply()
        else:
            self._session.reply_state_changed()

    def _setup_cost(self) -> Cost:
        """Return the cost of the system instruction and the function declarations."""
        tokens = text_tokens(self.setup.system_instruction)
        if self.setup.declarations:
            tokens += text_tokens(orjson.dumps(self.setup.declarations).decode())
        return Cost(text=tokens)

    def _find_call(self, response: JsonObject) -> PendingCall | None:
        """Return the call that is answered; None if it has finished. Raises `RefusedError`."""
        call_id = text_at(response, "id")
        if not call_id:
            name = text_at(response, "name")
            by_name = [key for key, one in self._pending.items() if one.call.name == name]
            if not self.setup.vertex or not by_name:
                raise RefusedError(INVALID_ARGUMENT)
            call_id = by_name[0]
        if call_id in self._finished_calls:
            return None
        pending = self._pending.get(call_id)
        if pending is None:
            raise RefusedError("Requested entity was not found.", POLICY)
        return pending

    def _add_result(self, pending: PendingCall, response: JsonObject) -> None:
        call = pending.call
        if pending.blocking or not flag_at(response, "willContinue"):
            self._finish_call(call.id)
        output = orjson.dumps(response.get("response") or {}).decode()
        part: JsonObject = {"functionResponse": {**response, "id": call.id, "name": call.name}}
        self.conversation.add("user", [part], Cost(text=text_tokens(output)))
        self.backend_session.add_item(ToolResultItem(new_id("item"), call.backend_call_id, output))

    def _finish_call(self, name: str) -> None:
        self._pending.pop(name, None)
        self._finished_calls.add(name)


def new_call_id() -> str:
    """Return a new id like the service's, which is longer than other services accept."""
    return f"function-call-{secrets.randbelow(10**20):020}"


def _usage(reply: OutgoingReply, setup: Setup) -> JsonObject:
    prompt, response = reply.prompt, reply.cost
    factor = 1 + setup.rules.unlisted_tokens
    prompt_tokens, response_tokens = round(prompt.total * factor), round(response.total * factor)
    name = "candidates" if setup.vertex else "response"
    usage: JsonObject = {
        "promptTokenCount": prompt_tokens,
        f"{name}TokenCount": response_tokens,
        "totalTokenCount": prompt_tokens + response_tokens,
        "promptTokensDetails": prompt.details(),
        f"{name}TokensDetails": response.details(),
    }
    if reply.thought_tokens:
        usage["thoughtsTokenCount"] = reply.thought_tokens
    return usage
