"""The replies of one session: requested one after another, sent to the client, and interrupted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from uuid import uuid4

import orjson

from duologue.audio import Samples
from duologue.clock import Clock, Timer
from duologue.items import ToolResultItem
from duologue.realtime.commands import DeleteItem, Truncate
from duologue.realtime.realtime import Realtime
from duologue.simulators._backend_session import BackendObserver, BackendSession
from duologue.simulators._verbatim import quoted_verbatim
from duologue.simulators.nova._blocks import Blocks
from duologue.simulators.nova._playback_model import ConversationEntry, PlaybackModel, PlayedReply
from duologue.simulators.nova._reply import OutgoingReply


class SessionHooks(BackendObserver, Protocol):
    """What the replies of a prompt need of their session."""

    def is_user_speaking(self) -> bool:
        """Return whether the person is speaking."""

    def tool_called(self, tool_use_id: str) -> None:
        """Accept a result of this tool call from now on."""

    def entry_spoken(self, entry: ConversationEntry) -> None:
        """Record a reply in the conversation, because its first sentence has been spoken."""

    def backend_failed(self, code: str, message: str) -> None:
        """End the session, because the backend cannot reply."""


class Replies:
    """Turns what the backend generates into content blocks; created when the prompt is known."""

    def __init__(
        self,
        backend: Realtime,
        session: SessionHooks,
        blocks: Blocks,
        clock: Clock,
        *,
        paraphrase: bool,
        double_encoded: bool,
    ) -> None:
        self._session = session
        self._blocks = blocks
        self._clock = clock
        self._paraphrase = paraphrase
        self._double_encoded = double_encoded
        self._outgoing: dict[str, OutgoingReply] = {}
        self._pending_calls: set[str] = set()
        self._replies_with_calls: set[str] = set()
        self._all_played: Callable[[], None] | None = None
        self._timer: Timer | None = None
        self.playback = PlaybackModel(blocks, clock, session.entry_spoken)
        self.backend_session = BackendSession(backend, self, session, clock)
        self.reply_owed = False
        """Whether tool results came while the person was speaking, so that a reply is still due."""

    def request_reply(self, text: str | None = None) -> str:
        """Request the next reply and return its id. With ``text``, the model says exactly that."""
        reply_id = uuid4().hex
        self._outgoing[reply_id] = OutgoingReply(
            self._blocks,
            self.playback,
            self._clock,
            rate=self.backend_session.backend.capabilities.output_rate,
            tool_called=self._send_call,
            reply_ended=lambda: self._reply_ended(reply_id),
        )
        self.backend_session.request_reply(reply_id, None, text)
        return reply_id

    def discard(self, reply_id: str) -> None:
        """Cancel a reply before anything of it has been sent."""
        if self._outgoing.pop(reply_id, None) is not None:
            self.backend_session.cancel_reply(reply_id)
            self._check_done()

    def verbatim_text(self, text: str) -> str | None:
        """Return the text that a message asks to be said word for word; None if it does not."""
        return None if self._paraphrase else quoted_verbatim(text)

    def add_tool_result(self, tool_use_id: str, content: str) -> None:
        """Hand a tool result to the model. After the last one the model replies by itself."""
        self.backend_session.add_item(ToolResultItem(uuid4().hex, tool_use_id, content))
        self._pending_calls.discard(tool_use_id)
        self._reply_to_results()

    def interrupt(self) -> None:
        """Stop all replies and cut off their playback, because the person speaks or writes."""
        current = None
        # Start with the last one, because the backend would otherwise begin those that wait.
        for reply_id, outgoing in reversed([*self._outgoing.items()]):
            del self._outgoing[reply_id]
            current = outgoing.interrupt()
            self.backend_session.cancel_reply(reply_id)
        self._replies_with_calls.clear()
        interrupted = [*self.playback.interrupt()]
        if current is not None and current not in interrupted:
            interrupted.append(current)  # Everything of it that was sent has been played.
        if interrupted:
            self._blocks.send_interruption()
        for played in interrupted:
            self.backend_session.edit_item(self._history_edit(played))

    def call_when_played(self, done: Callable[[], None]) -> None:
        """Call ``done`` once all replies have been generated and played."""
        self._all_played = done
        self._check_done()

    def close(self) -> None:
        """Stop sending."""
        self._all_played = None
        self.playback.close()
        for outgoing in self._outgoing.values():
            outgoing.is_over = True
        self._outgoing.clear()
        if self._timer is not None:
            self._timer.cancel()

    # ReplySink: called by the backend session

    def reply_text(self, reply_id: str, text: str, backend_item_id: str) -> None:
        """Add the next text of the reply."""
        if reply_id in self._outgoing:
            self._outgoing[reply_id].add_text(text, backend_item_id)

    def reply_audio(self, reply_id: str, samples: Samples) -> None:
        """Add the next audio of the reply."""
        if reply_id in self._outgoing:
            self._outgoing[reply_id].add_audio(samples)

    def reply_tool_call(self, reply_id: str, call_id: str, name: str, arguments: str) -> None:
        """Send a tool call."""
        if reply_id in self._outgoing:
            self._pending_calls.add(call_id)
            self._replies_with_calls.add(reply_id)
            self._outgoing[reply_id].add_call(call_id, name, arguments)

    def reply_finished(self, reply_id: str, code: str, message: str | None) -> None:
        """Finish the reply, or fail with ``code`` and ``message``."""
        if reply_id not in self._outgoing:
            return
        if message is None:
            self._outgoing[reply_id].finish()
        else:
            self._session.backend_failed(code, message)

    def _send_call(self, call_id: str, name: str, arguments: str) -> None:
        content = orjson.dumps(arguments).decode() if self._double_encoded else arguments
        self._session.tool_called(call_id)
        self._blocks.send_tool_use(call_id, name, content)
        self._blocks.send_usage("output", text=arguments)

    def _reply_ended(self, reply_id: str) -> None:
        self._outgoing.pop(reply_id, None)
        if reply_id in self._replies_with_calls:
            self._replies_with_calls.discard(reply_id)
            self._reply_to_results()
        self._check_done()

    def _reply_to_results(self) -> None:
        """Request a reply once the model has all tool results."""
        if self._pending_calls or self._replies_with_calls:
            return
        if self._session.is_user_speaking():
            # The reply to what the person is just saying will use the results, too.
            self.reply_owed = True
        else:
            self.request_reply()

    def _history_edit(self, reply: PlayedReply) -> Truncate | DeleteItem:
        """Return the edit that leaves only a reply's spoken sentences in the backend's history."""
        if not reply.entry.text:
            return DeleteItem(reply.backend_item_id)
        played_ms = reply.played_ms(self._clock.now())
        return Truncate(reply.backend_item_id, played_ms, reply.entry.text)

    def _check_done(self) -> None:
        if self._all_played is None or self._outgoing:
            return
        self.playback.catch_up()
        if self.playback.is_playing:
            self._timer = self._clock.call_at(self.playback.ends_at, self._check_done)
        else:
            done, self._all_played = self._all_played, None
            done()
