"""The server's responses: the request that each answers, its text, and its tool calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from duologue._bounded_dict import BoundedDict
from duologue._g711 import G711Decoder
from duologue.audio import PcmDecoder
from duologue.errors import ErrorKind
from duologue.events.events import USAGE_PARTS
from duologue.items import replace_surrogates
from duologue.json_types import JsonObject
from duologue.providers._json_fields import (
    int_field,
    object_field,
    object_list,
    optional_str,
    str_field,
)
from duologue.providers._openai_protocol.errors import kind_of
from duologue.providers._verbatim import same_words
from duologue.realtime.commands import Say
from duologue.realtime.outputs import (
    Output,
    ProviderError,
    ReplyDone,
    ReplyStarted,
    ReplyText,
    SayMismatch,
    ToolCall,
    Usage,
)

type AudioDecoder = PcmDecoder | G711Decoder
"""Decodes the audio of one response, which comes in pieces."""

type KindOf = Callable[[str, str, str], ErrorKind]

_MAX_TRACKED = 256
"""Maximum number of tracked responses and requests; the oldest is dropped beyond it."""


@dataclass(slots=True)
class PartialCall:
    """A tool call in progress; ``arguments`` is None until they arrive."""

    name: str
    call_id: str
    arguments: str | None = None


@dataclass(slots=True)
class Response:
    """A response in progress; ``verbatim_text`` is the scripted text that it was asked to say."""

    id: str
    verbatim_text: str | None
    transcripts: dict[str, list[str]] = field(default_factory=dict)
    """Text of its items, in order of arrival."""
    truncated_items: set[str] = field(default_factory=set)
    """Items of scripted text that were truncated, and already are in the conversation as they
    should.
    """
    open_calls: dict[str, PartialCall] = field(default_factory=dict)
    """Tool calls in progress, by item."""
    finished_calls: set[str] = field(default_factory=set)
    open_items: set[str] = field(default_factory=set)
    """Items in progress."""
    cancelled: bool = False
    audio_decoder: AudioDecoder = field(default_factory=PcmDecoder)


@dataclass(frozen=True, slots=True)
class EndedResponse:
    """The end of a response: the outputs, and what must be added to the conversation.

    ``turn_detected``: the server cancelled it because it detected speech.
    """

    before: Sequence[Output]
    done: ReplyDone
    after: Sequence[Output]
    verbatim_items: Sequence[tuple[str, str]]
    turn_detected: bool


class Responses:
    """All responses of one connection.

    ``confirms_cancel``: a cancelled response has its own ``response.done``; otherwise it ends with
    its last item. ``kind_of`` classifies an error by its code, type and message. ``make_decoder``
    makes the decoder of a response's audio.
    """

    __slots__ = (
        "_active",
        "_confirms_cancel",
        "_ended_early",
        "_kind_of",
        "_make_decoder",
        "_verbatim_replies",
        "_verbatim_requests",
    )

    def __init__(
        self,
        *,
        kind_of: KindOf = kind_of,
        confirms_cancel: bool = True,
        make_decoder: Callable[[], AudioDecoder] = PcmDecoder,
    ) -> None:
        self._kind_of = kind_of
        self._make_decoder = make_decoder
        self._confirms_cancel = confirms_cancel
        self._ended_early: deque[str] = deque(maxlen=_MAX_TRACKED)
        self._active: BoundedDict[str, Response] = BoundedDict(_MAX_TRACKED)
        self._verbatim_replies: deque[str] = deque(maxlen=_MAX_TRACKED)
        self._verbatim_requests: BoundedDict[str, str] = BoundedDict(_MAX_TRACKED)

    def __contains__(self, reply_id: str) -> bool:
        return reply_id in self._active

    def get(self, reply_id: str) -> Response | None:
        """Return a response in progress."""
        return self._active.get(reply_id)

    @property
    def active_reply(self) -> str | None:
        """The newest response that is in progress and not cancelled."""
        live = (response.id for response in reversed([*self._active.values()]))
        return next((one for one in live if not self._active[one].cancelled), None)

    def mark_cancelled(self, reply_id: str) -> None:
        """Record that a response was cancelled."""
        if reply_id in self._active:
            self._active[reply_id].cancelled = True

    def end_cancelled(self) -> Sequence[Output]:
        """End all cancelled responses, because the server has none in progress."""
        cancelled = [response for response in self._active.values() if response.cancelled]
        return [self._end_unconfirmed(response) for response in cancelled]

    def is_verbatim(self, reply_id: str) -> bool:
        """Return whether a response says scripted text, and so is not in the conversation."""
        return reply_id in self._verbatim_replies

    def expect_verbatim(self, command: Say) -> None:
        """Record that scripted text was requested."""
        self._verbatim_requests[command.request_id] = command.text

    def mark_truncated(self, item_id: str) -> None:
        """Record that the program truncated or deleted an item, so that it is not added here."""
        for response in self._active.values():
            if response.verbatim_text is not None:
                response.truncated_items.add(item_id)

    def response_created(self, reply_id: str, request_id: str | None) -> Sequence[Output]:
        """Handle ``response.created``; ``request_id`` is the request that it answers, if any."""
        verbatim_text = (
            None if request_id is None else self._verbatim_requests.pop(request_id, None)
        )
        self._active[reply_id] = Response(
            reply_id, verbatim_text, audio_decoder=self._make_decoder()
        )
        if verbatim_text is not None:
            self._verbatim_replies.append(reply_id)
        return [ReplyStarted(reply_id, request_id)]

    def item_added(self, event: JsonObject) -> None:
        """Handle ``response.output_item.added``: store tool calls, whose arguments arrive
        separately.
        """
        response = self._active.get(str_field(event, "response_id"))
        item = object_field(event, "item")
        if response is None:
            return
        response.open_items.add(str_field(item, "id"))
        if item.get("type") == "function_call":
            response.open_calls[str_field(item, "id")] = PartialCall(
                str_field(item, "name"), str_field(item, "call_id")
            )

    def transcript_delta(self, event: JsonObject) -> Sequence[Output]:
        """Handle the next words, spoken or written."""
        reply_id, item_id = str_field(event, "response_id"), str_field(event, "item_id")
        delta = str_field(event, "delta")
        response = self._active.get(reply_id)
        if response is not None:
            response.transcripts.setdefault(item_id, []).append(delta)
        return [ReplyText(reply_id, item_id, delta)]

    def transcript_done(self, event: JsonObject, key: str) -> Sequence[Output]:
        """Handle the complete text of an item: report what was missing from the deltas."""
        reply_id, item_id = str_field(event, "response_id"), str_field(event, "item_id")
        response = self._active.get(reply_id)
        whole_text = str_field(event, key)
        if response is None:
            return []
        said = "".join(response.transcripts.get(item_id, ()))
        response.transcripts[item_id] = [whole_text]
        if whole_text == said or not whole_text.startswith(said):
            return []
        return [ReplyText(reply_id, item_id, whole_text[len(said) :])]

    def arguments_done(self, event: JsonObject) -> Sequence[Output]:
        """Handle ``response.function_call_arguments.done``.

        Store the arguments, because the event is also sent for truncated responses.
        """
        response = self._active.get(str_field(event, "response_id"))
        if response is None:
            return []
        call = response.open_calls.setdefault(str_field(event, "item_id"), PartialCall("", ""))
        call.name = optional_str(event, "name") or call.name
        call.call_id = optional_str(event, "call_id") or call.call_id
        call.arguments = str_field(event, "arguments")
        return []

    def item_done(self, event: JsonObject) -> Sequence[Output]:
        """Handle ``response.output_item.done``."""
        response = self._active.get(str_field(event, "response_id"))
        if response is None:
            return []
        item = object_field(event, "item")
        outputs = list(self._finish_call(response, item))
        response.open_items.discard(optional_str(item, "id") or "")
        # An incomplete item has failed or was too long; ``response.done`` says why.
        cut = response.cancelled or item.get("status") == "cancelled"
        if cut and not response.open_items and not self._confirms_cancel:
            outputs.append(self._end_unconfirmed(response))
        return outputs

    def late_response_done(self, event: JsonObject) -> Sequence[Output]:
        """Handle ``response.done`` of a response that has already ended: report its usage."""
        fields = object_field(event, "response")
        reply_id = optional_str(fields, "id")
        if reply_id is None or reply_id not in self._ended_early:
            return []
        self._ended_early.remove(reply_id)
        return _usage(object_field(fields, "usage"))

    def response_done(self, event: JsonObject) -> EndedResponse | None:
        """Handle ``response.done``; return None for an unknown response."""
        fields = object_field(event, "response")
        # Without a response in the event, the server means the only active one.
        reply_id = optional_str(fields, "id") or optional_str(event, "response_id")
        if reply_id is None and len(self._active) == 1:
            reply_id = next(iter(self._active))
        response = None if reply_id is None else self._active.pop(reply_id, None)
        if response is None:
            return None
        status: Literal["completed", "cancelled", "failed"] = "completed"
        details = object_field(fields, "status_details")
        reason = optional_str(details, "reason")
        message = None
        before: list[Output] = []
        after: list[Output] = []
        match fields.get("status"):
            case "cancelled":
                status = "cancelled"
            case "failed":
                status = "failed"
                error = object_field(details, "error")
                code = optional_str(error, "code") or ""
                error_type = optional_str(error, "type") or ""
                message = optional_str(error, "message") or code or "the model failed to reply"
                kind = self._kind_of(code, error_type, message)
                if kind in (ErrorKind.FATAL, ErrorKind.RECYCLE):
                    after.append(ProviderError(kind, code or error_type, message))
            case "incomplete":
                message = f"the reply was cut short: {reason or 'no reason given'}"
        if status == "completed":
            for item in object_list(fields, "output"):
                before += self._finish_call(response, item)
            if message is None:
                # A server may report a call by its arguments alone.
                for call in response.open_calls.values():
                    before += self._report_call(response, call)
        before += _usage(object_field(fields, "usage"))
        spoken: list[tuple[str, str]] = []
        if response.verbatim_text is not None and status == "completed":
            texts = {
                one: replace_surrogates("".join(words))
                for one, words in response.transcripts.items()
            }
            said = " ".join(texts.values())
            if not same_words(response.verbatim_text, said):
                before.append(SayMismatch(response.id, response.verbatim_text, said))
            spoken = [one for one in texts.items() if one[0] not in response.truncated_items]
        cut = status == "cancelled" and reason == "turn_detected"
        return EndedResponse(before, ReplyDone(response.id, status, message), after, spoken, cut)

    def _end_unconfirmed(self, response: Response) -> ReplyDone:
        """End a cancelled response although the server has not confirmed it."""
        del self._active[response.id]
        self._ended_early.append(response.id)
        return ReplyDone(response.id, "cancelled")

    def _finish_call(self, response: Response, item: JsonObject) -> Sequence[Output]:
        """Report the tool call of a finished item, if it is one; drop an incomplete call."""
        if item.get("type") != "function_call":
            return []
        known = response.open_calls.pop(optional_str(item, "id") or "", PartialCall("", ""))
        if item.get("status") in _INCOMPLETE:
            return []
        name = optional_str(item, "name") or known.name
        call_id = optional_str(item, "call_id") or known.call_id
        arguments = optional_str(item, "arguments") or known.arguments or ""
        return self._report_call(response, PartialCall(name, call_id, arguments))

    def _report_call(self, response: Response, call: PartialCall) -> Sequence[Output]:
        if call.arguments is None or not call.name or not call.call_id:
            return []
        if call.call_id in response.finished_calls:
            return []
        response.finished_calls.add(call.call_id)
        return [ToolCall(response.id, call.call_id, call.name, call.arguments)]


def _usage(usage: JsonObject) -> Sequence[Output]:
    # OpenAI uses token_details, Qwen tokens_details.
    counts: list[dict[str, int]] = []
    for side in ("input", "output"):
        details = object_field(usage, f"{side}_token_details") or object_field(
            usage, f"{side}_tokens_details"
        )
        counts_by_kind = {
            key: int_field(details, key) for key in details if key.endswith(_TOKENS_SUFFIX)
        }
        count = {
            k.removesuffix(_TOKENS_SUFFIX): n for k, n in counts_by_kind.items() if n is not None
        }
        total = int_field(usage, f"{side}_tokens") or 0
        rest = total - sum(n for kind, n in count.items() if kind not in USAGE_PARTS)
        if rest > 0:
            # The total contains tokens of a kind that is not listed.
            count["other" if count else "tokens"] = rest
        counts.append(count)
    return [Usage(*counts)] if any(counts) else []


_TOKENS_SUFFIX = "_tokens"
_INCOMPLETE = ("cancelled", "incomplete")
"""Status of an item that did not complete."""
