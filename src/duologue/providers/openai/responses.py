"""Responses of the server: what each answers, says and calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from duologue.events import USAGE_PARTS
from duologue.items import Json, sendable
from duologue.providers.fields import inner, objects, some_text, text, whole
from duologue.providers.openai.errors import kind_of
from duologue.providers.spoken import same_words
from duologue.realtime.commands import Say
from duologue.realtime.errors import ErrorKind
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

type JsonObject = dict[str, Json]

type KindOf = Callable[[str, str, str], ErrorKind]

_MOST = 256
"""Responses, and requests, that are followed at a time; the oldest is forgotten beyond it."""


@dataclass(slots=True)
class Call:
    """A call of a function; ``arguments`` None: they have not come."""

    name: str
    call_id: str
    arguments: str | None = None


@dataclass(slots=True)
class Response:
    """A response that is being made; ``wanted`` is the scripted text that it was told to say."""

    id: str
    wanted: str | None
    said: dict[str, list[str]] = field(default_factory=dict)
    """The words of its items, in order of arrival."""
    settled: set[str] = field(default_factory=set)
    """Items of scripted text that have been cut, and are in the conversation as they should be."""
    calls: dict[str, Call] = field(default_factory=dict)
    """Calls that are being made, by item."""
    called: set[str] = field(default_factory=set)
    items: set[str] = field(default_factory=set)
    """Items that are being made."""
    cancelled: bool = False
    rest: bytes = b""
    """Half a sample of its sound."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A response is over: what to tell, and what has to go into the conversation.

    ``turn_detected``: the server cut it because it heard the person.
    """

    before: Sequence[Output]
    done: ReplyDone
    after: Sequence[Output]
    spoken: Sequence[tuple[str, str]]
    turn_detected: bool


class Responses:
    """All responses of one connection.

    ``ends_cancelled``: a response that is cancelled has an end of its own; else the end of its last
    item has to do. ``kind_of`` sorts an error by its code, type and words.
    """

    __slots__ = ("_ends_cancelled", "_given_up", "_kind_of", "_live", "_says", "_scripted")

    def __init__(self, *, kind_of: KindOf = kind_of, ends_cancelled: bool = True) -> None:
        self._kind_of = kind_of
        self._ends_cancelled = ends_cancelled
        self._given_up: deque[str] = deque(maxlen=_MOST)
        self._live: dict[str, Response] = {}
        self._scripted: deque[str] = deque(maxlen=_MOST)
        self._says: dict[str, str] = {}

    def __contains__(self, reply_id: str) -> bool:
        return reply_id in self._live

    def get(self, reply_id: str) -> Response | None:
        """A response that is being made."""
        return self._live.get(reply_id)

    @property
    def running(self) -> str | None:
        """The newest response that is being made, and not cancelled."""
        live = (response.id for response in reversed(self._live.values()))
        return next((one for one in live if not self._live[one].cancelled), None)

    def cancel(self, reply_id: str) -> None:
        """A response is to be stopped."""
        if reply_id in self._live:
            self._live[reply_id].cancelled = True

    def none_active(self) -> Sequence[Output]:
        """The server makes no response: those that were cancelled have ended."""
        cancelled = [response for response in self._live.values() if response.cancelled]
        return [self._give_up(response) for response in cancelled]

    def scripted(self, reply_id: str) -> bool:
        """Whether it was told to say scripted text, and so is not in the conversation."""
        return reply_id in self._scripted

    def say(self, command: Say) -> None:
        """Scripted text was asked for."""
        self._says[command.request_id] = command.text
        _bound(self._says)

    def settle(self, item_id: str) -> None:
        """An item was cut by the program: nothing more is done about it here."""
        for response in self._live.values():
            if response.wanted is not None:
                response.settled.add(item_id)

    def created(self, reply_id: str, request_id: str | None) -> Sequence[Output]:
        """``response.created``: it answers that request, if one."""
        wanted = None if request_id is None else self._says.pop(request_id, None)
        self._live[reply_id] = Response(reply_id, wanted)
        if wanted is not None:
            self._scripted.append(reply_id)
        _bound(self._live)
        return [ReplyStarted(reply_id, request_id)]

    def item(self, event: JsonObject) -> None:
        """``response.output_item.added``: remember the calls, whose arguments come alone."""
        response = self._live.get(text(event, "response_id"))
        item = inner(event, "item")
        if response is None:
            return
        response.items.add(text(item, "id"))
        if item.get("type") == "function_call":
            response.calls[text(item, "id")] = Call(text(item, "name"), text(item, "call_id"))

    def words(self, event: JsonObject) -> Sequence[Output]:
        """The next words, spoken or written."""
        reply_id, item_id = text(event, "response_id"), text(event, "item_id")
        delta = text(event, "delta")
        response = self._live.get(reply_id)
        if response is not None:
            response.said.setdefault(item_id, []).append(delta)
        return [ReplyText(reply_id, item_id, delta)]

    def worded(self, event: JsonObject, key: str) -> Sequence[Output]:
        """All words of an item: what did not come as deltas is told now."""
        reply_id, item_id = text(event, "response_id"), text(event, "item_id")
        response = self._live.get(reply_id)
        whole_text = text(event, key)
        if response is None:
            return []
        said = "".join(response.said.get(item_id, ()))
        response.said[item_id] = [whole_text]
        if whole_text == said or not whole_text.startswith(said):
            return []
        return [ReplyText(reply_id, item_id, whole_text[len(said) :])]

    def arguments(self, event: JsonObject) -> Sequence[Output]:
        """``response.function_call_arguments.done``: kept, for it comes of cut responses, too."""
        response = self._live.get(text(event, "response_id"))
        if response is None:
            return []
        call = response.calls.setdefault(text(event, "item_id"), Call("", ""))
        call.name = some_text(event, "name") or call.name
        call.call_id = some_text(event, "call_id") or call.call_id
        call.arguments = text(event, "arguments")
        return []

    def item_done(self, event: JsonObject) -> Sequence[Output]:
        """``response.output_item.done``."""
        response = self._live.get(text(event, "response_id"))
        if response is None:
            return []
        item = inner(event, "item")
        outputs = list(self._call_of(response, item))
        response.items.discard(some_text(item, "id") or "")
        # One that is incomplete has failed or was too long: why, its own end says.
        cut = response.cancelled or item.get("status") == "cancelled"
        if cut and not response.items and not self._ends_cancelled:
            outputs.append(self._give_up(response))
        return outputs

    def late(self, event: JsonObject) -> Sequence[Output]:
        """``response.done`` of one that is over already: what it cost."""
        made = inner(event, "response")
        reply_id = some_text(made, "id")
        if reply_id is None or reply_id not in self._given_up:
            return []
        self._given_up.remove(reply_id)
        return _usage(inner(made, "usage"))

    def done(self, event: JsonObject) -> Ended | None:
        """``response.done``; None for a response that is not known."""
        made = inner(event, "response")
        # A server may leave the response out; then it means the only one that is live.
        reply_id = some_text(made, "id") or some_text(event, "response_id")
        if reply_id is None and len(self._live) == 1:
            reply_id = next(iter(self._live))
        response = None if reply_id is None else self._live.pop(reply_id, None)
        if response is None:
            return None
        status: Literal["completed", "cancelled", "failed"] = "completed"
        details = inner(made, "status_details")
        reason = some_text(details, "reason")
        message = None
        before: list[Output] = []
        after: list[Output] = []
        match made.get("status"):
            case "cancelled":
                status = "cancelled"
            case "failed":
                status = "failed"
                error = inner(details, "error")
                code = some_text(error, "code") or ""
                error_type = some_text(error, "type") or ""
                message = some_text(error, "message") or code or "the model failed to reply"
                kind = self._kind_of(code, error_type, message)
                if kind in (ErrorKind.FATAL, ErrorKind.RECYCLE):
                    after.append(ProviderError(kind, code or error_type, message))
            case "incomplete":
                message = f"the reply was cut short: {reason or 'no reason given'}"
        if status == "completed":
            for item in objects(made, "output"):
                before += self._call_of(response, item)
            if message is None:
                # A server may tell of a call by its arguments alone.
                for call in response.calls.values():
                    before += self._call(response, call)
        before += _usage(inner(made, "usage"))
        spoken: list[tuple[str, str]] = []
        if response.wanted is not None and status == "completed":
            texts = {one: sendable("".join(words)) for one, words in response.said.items()}
            said = " ".join(texts.values())
            if not same_words(response.wanted, said):
                before.append(SayMismatch(response.id, response.wanted, said))
            spoken = [one for one in texts.items() if one[0] not in response.settled]
        cut = status == "cancelled" and reason == "turn_detected"
        return Ended(before, ReplyDone(response.id, status, message), after, spoken, cut)

    def _give_up(self, response: Response) -> ReplyDone:
        """A cancelled response is over, though the server has not said so."""
        del self._live[response.id]
        self._given_up.append(response.id)
        return ReplyDone(response.id, "cancelled")

    def _call_of(self, response: Response, item: JsonObject) -> Sequence[Output]:
        """The call that a finished item is, if it is one; only half of one is forgotten."""
        if item.get("type") != "function_call":
            return []
        known = response.calls.pop(some_text(item, "id") or "", Call("", ""))
        if item.get("status") in _CUT:
            return []
        name = some_text(item, "name") or known.name
        call_id = some_text(item, "call_id") or known.call_id
        arguments = some_text(item, "arguments") or known.arguments or ""
        return self._call(response, Call(name, call_id, arguments))

    def _call(self, response: Response, call: Call) -> Sequence[Output]:
        if call.arguments is None or not call.name or not call.call_id:
            return []
        if call.call_id in response.called:
            return []
        response.called.add(call.call_id)
        return [ToolCall(response.id, call.call_id, call.name, call.arguments)]


def _usage(usage: JsonObject) -> Sequence[Output]:
    # OpenAI says token_details, Qwen tokens_details.
    counts: list[dict[str, int]] = []
    for side in ("input", "output"):
        details = inner(usage, f"{side}_token_details") or inner(usage, f"{side}_tokens_details")
        found = {key: whole(details, key) for key in details if key.endswith(_TOKENS)}
        count = {k.removesuffix(_TOKENS): n for k, n in found.items() if n is not None}
        total = whole(usage, f"{side}_tokens") or 0
        rest = total - sum(n for kind, n in count.items() if kind not in USAGE_PARTS)
        if rest > 0:
            # The total contains tokens of no kind that is listed.
            count["other" if count else "tokens"] = rest
        counts.append(count)
    return [Usage(*counts)] if any(counts) else []


_TOKENS = "_tokens"
_CUT = ("cancelled", "incomplete")
"""What an item is that was cut."""


def _bound[T](entries: dict[str, T]) -> None:
    if len(entries) > _MOST:
        del entries[next(iter(entries))]
