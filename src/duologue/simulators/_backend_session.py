"""The model behind a simulated session: turns go in and replies come out, one at a time.

A service accepts a request at any time, a `Realtime` has one reply at a time. `BackendSession`
keeps the requests in a queue and sends the next one when the reply before it has ended and the
backend has transcribed every turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from duologue.audio import AudioFrame, Samples
from duologue.clock import Clock, Timer
from duologue.errors import DuologueError, ReplyRefusedError, SessionClosedError, UnsupportedError
from duologue.events.events import RealtimeConnectedEvent, RealtimeDisconnectedEvent
from duologue.items import Item
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import DeleteItem, ToolSpec, Truncate
from duologue.realtime.outputs import (
    Output,
    ReplyAudio,
    ReplyDone,
    ReplyStarted,
    ReplyText,
    ToolCall,
    UserTranscript,
    UserTurnEnded,
)
from duologue.realtime.realtime import Realtime
from duologue.simulators._backends import ScriptedBackend

TURN_TIMEOUT_S = 10.0
"""Seconds until a turn counts as one without words, if the backend does not report its end."""


@dataclass(slots=True, eq=False)
class _ReplyRequest:
    """A reply that the backend is to make."""

    id: str
    instructions: str | None
    text: str | None
    """Text to be said verbatim instead."""
    backend_reply_id: str = ""


@dataclass(slots=True, eq=False)
class _PendingTurn:
    item_id: str
    text: str = ""
    discarded: bool = False
    timer: Timer | None = None


class ReplySink(Protocol):
    """Receives the replies of the backend, by their ids."""

    def reply_text(self, reply_id: str, text: str, backend_item_id: str) -> None:
        """Accept the next text of a reply."""

    def reply_audio(self, reply_id: str, samples: Samples) -> None:
        """Accept the next audio of a reply, at the output rate of the backend."""

    def reply_tool_call(self, reply_id: str, call_id: str, name: str, arguments: str) -> None:
        """Accept a tool call of a reply."""

    def reply_finished(self, reply_id: str, code: str, message: str | None) -> None:
        """Accept the end of a reply, which has failed unless ``message`` is None."""


class BackendObserver(Protocol):
    """Receives everything that the backend reports besides the contents of replies."""

    def turn_transcribed(self, item_id: str, text: str, backend_item_id: str) -> None:
        """Accept the transcript of a turn, which is empty if the turn has no words.

        Args:
            item_id: The item for which `BackendSession.end_turn` was called.
            text: The transcript.
            backend_item_id: The backend's own item; empty if it has not reported one.
        """

    def partial_transcript(self, text: str) -> None:
        """Accept the transcript so far, if the backend transcribes a turn while it lasts."""

    def reply_started(self) -> None:
        """The backend has started a requested reply."""


class BackendSession:
    """Requests one reply after another, each once the backend knows the turns before it.

    Args:
        backend: The model.
        sink: Receives the replies.
        observer: Receives transcripts, and the starts of replies.
        clock: The clock of the timeouts.
        rate: Hz of the audio that `send_audio` is given.
    """

    def __init__(
        self,
        backend: Realtime,
        sink: ReplySink,
        observer: BackendObserver,
        clock: Clock,
        *,
        rate: int = 24000,
    ) -> None:
        self.backend = backend
        self.rate = rate
        self._sink = sink
        self._observer = observer
        self._clock = clock
        self._pending_turns: deque[_PendingTurn] = deque()
        self._requests: deque[_ReplyRequest] = deque()
        self._current: _ReplyRequest | None = None
        self.error = ""
        """Why the backend has ended, if it has."""

    @property
    def tool_calls_follow(self) -> bool:
        """Whether the backend is known to call tools after its text."""
        reply = self.backend.requested_reply if isinstance(self.backend, ScriptedBackend) else None
        return reply is not None and bool(reply.tools)

    async def run(self, instructions: str, tools: Sequence[ToolSpec]) -> None:
        """Run the backend until it ends."""
        try:
            await self.backend.run(SessionSetup(instructions, tools), self)
        except DuologueError as error:
            self.error = str(error)
        finally:
            for turn in self._pending_turns:
                if turn.timer is not None:
                    turn.timer.cancel()

    def send_audio(self, samples: Samples) -> None:
        """Send the backend the next audio of a turn."""
        if len(samples) and self.backend.connected:
            self.backend.send_audio(AudioFrame(samples, self.rate))

    def end_turn(self, item_id: str) -> None:
        """End the turn; the backend then reports its transcript."""
        self._request_turn_end(_PendingTurn(item_id))

    def discard_turn(self) -> None:
        """Drop the audio that was sent since the last turn."""
        self._request_turn_end(_PendingTurn("", discarded=True))

    def _request_turn_end(self, turn: _PendingTurn) -> None:
        if not self.backend.connected:
            return
        turn.timer = self._clock.call_at(
            self._clock.now() + TURN_TIMEOUT_S, lambda: self._turn_ended(turn, "")
        )
        self._pending_turns.append(turn)
        self.backend.end_turn(reply=False)

    def request_reply(self, reply_id: str, instructions: str | None, text: str | None) -> None:
        """Request a reply.

        Args:
            reply_id: The id under which the sink receives it.
            instructions: Instructions for this reply alone.
            text: Text to be said verbatim instead.
        """
        self._requests.append(_ReplyRequest(reply_id, instructions, text))
        self._send_next_request()

    def cancel_reply(self, reply_id: str) -> None:
        """Cancel a reply, or drop its request."""
        self._requests = deque(request for request in self._requests if request.id != reply_id)
        if self._current is not None and self._current.id == reply_id:
            self._current = None
            self.backend.interrupt()
            self._send_next_request()

    def add_item(self, item: Item) -> None:
        """Append an item to the backend's history."""
        if self.backend.connected:
            self.backend.add_item(item)

    def edit_item(self, change: DeleteItem | Truncate) -> None:
        """Delete or truncate an item of the backend's history, if the backend can do that."""
        if self.backend.connected and self.backend.capabilities.truncation == "native":
            self.backend.edit(change)

    def configure(self, instructions: str | None, tools: Sequence[ToolSpec] | None) -> None:
        """Change instructions and tools, if the backend can change them."""
        profile = self.backend.capabilities
        if not self.backend.connected:
            return
        if instructions is not None and profile.mutable_instructions:
            self.backend.update_instructions(instructions)
        if tools is not None and profile.mutable_tools:
            self.backend.update_tools(tools)

    def _send_next_request(self) -> None:
        if self._current is not None or self._pending_turns or not self._requests:
            return
        request = self._current = self._requests.popleft()
        try:
            if request.text is not None:
                self.backend.say(request.id, request.text)
            else:
                self.backend.request_reply(request.id, request.instructions)
        except (SessionClosedError, UnsupportedError) as error:
            self._finish_request(request, "server_error", str(error))

    def _finish_request(self, request: _ReplyRequest, code: str, message: str | None) -> None:
        if self._current is request:
            self._current = None
        self._sink.reply_finished(request.id, code, message)
        self._send_next_request()

    def _turn_ended(self, turn: _PendingTurn, backend_item_id: str) -> None:
        if turn not in self._pending_turns:
            return
        self._pending_turns.remove(turn)
        if turn.timer is not None:
            turn.timer.cancel()
        if turn.discarded:
            if backend_item_id:
                self.edit_item(DeleteItem(backend_item_id))
        else:
            self._observer.turn_transcribed(turn.item_id, turn.text, backend_item_id)
        # Not at once: a backend may report a turn just before it adds it to its history.
        self._clock.call_at(self._clock.now(), self._send_next_request)

    # SessionObserver: what the backend reports

    def connected(self, event: RealtimeConnectedEvent) -> None:
        """Do nothing: a session waits for `Realtime.ready`."""

    def disconnected(self, event: RealtimeDisconnectedEvent) -> None:
        """Do nothing: `run` says why the backend has ended."""

    def output(self, output: Output, epoch: int) -> None:
        """Process an output of the backend."""
        request = self._current
        match output:
            case UserTranscript(text=text, final=True) if self._pending_turns:
                self._pending_turns[0].text = text
            case UserTranscript(text=text, final=False) if not self._pending_turns:
                self._observer.partial_transcript(text)
            case UserTurnEnded(item_id=item_id) if self._pending_turns:
                self._turn_ended(self._pending_turns[0], item_id)
            case ReplyStarted(reply_id=reply_id, request_id=request_id):
                if request is not None and request_id == request.id:
                    request.backend_reply_id = reply_id
                    self._observer.reply_started()
            case _ if request is not None and request.backend_reply_id:
                self._forward_output(request, output)
            case _:
                return

    def _forward_output(self, request: _ReplyRequest, output: Output) -> None:
        """Forward an output that belongs to the current reply."""
        backend_id = request.backend_reply_id
        match output:
            case ReplyText(reply_id=reply_id, item_id=item_id, text=text) if reply_id == backend_id:
                self._sink.reply_text(request.id, text, item_id)
            case ReplyAudio(reply_id=reply_id, frame=frame) if reply_id == backend_id:
                self._sink.reply_audio(request.id, frame.samples)
            case ToolCall(reply_id, call_id, name, arguments) if reply_id == backend_id:
                self._sink.reply_tool_call(request.id, call_id, name, arguments)
            case ReplyDone(reply_id, status, message) if reply_id == backend_id:
                failed = status != "completed"
                text = message or "The server had an error while processing your request."
                self._finish_request(request, "server_error", text if failed else None)
            case _:
                return

    def reply_skipped(self, epoch: int) -> None:
        """Do nothing: after its tools a backend may stay silent."""

    def late_transcript(self, words: object) -> None:
        """Ignore what the backend said before it was truncated."""

    def on_interrupt(self, epoch: int) -> Sequence[Truncate | DeleteItem]:
        """Edit nothing: the session edits the history itself, as the client demands."""
        return ()

    def reply_ended(self, request_id: str, error: Exception | None) -> None:
        """Fail a reply that the backend refuses."""
        request = self._current
        if request is None or request.id != request_id or error is None:
            return
        code = error.code if isinstance(error, ReplyRefusedError) else ""
        self._finish_request(request, code or "server_error", str(error))

    def history(self) -> Sequence[Item]:
        """Return nothing: a backend runs in this process and never has to be restored."""
        return ()

    def reconnecting(self, event: object) -> None:
        """Do nothing: a backend does not reconnect."""

    def reconnected(self, event: object) -> None:
        """Do nothing: a backend does not reconnect."""

    def turns_replayed(self, item_ids: Sequence[str]) -> None:
        """Do nothing: a backend does not reconnect."""

    def reply_lost(self, reply_id: str, request_id: str | None) -> None:
        """Do nothing: a backend does not reconnect."""

    def spoken_text(self, reply_id: str) -> str | None:
        """Return None: a backend does not reconnect."""
        return None
