"""Pass the commands of a session on after its border has noted them."""

from __future__ import annotations

from duologue.audio import AudioFrame
from duologue.realtime._session.session import Session
from duologue.realtime.border import Border
from duologue.realtime.commands import (
    Command,
    EndTurn,
    RequestReply,
    Say,
    SendToolResult,
    UpdateSession,
)


class BorderedSession:
    """Has ``border`` note each command, then gives it to ``session``; see `Session`."""

    def __init__(self, session: Session, border: Border) -> None:
        self._session = session
        self._note_input = border.note_input

    def send_audio(self, frame: AudioFrame) -> None:
        """Send audio of the person, which is noted at the model's rate."""
        resampled = self._session.input_audio.resample(frame)
        if resampled is not None:
            self._note_input("send_audio", resampled)
            self._session.send_audio(resampled)

    def transmit(self, command: Command) -> None:
        """Send a command."""
        self._note_input("transmit", command)
        self._session.transmit(command)

    def transmit_directly(self, command: Command) -> None:
        """Give a command to the current connection."""
        self._note_input("transmit_directly", command)
        self._session.transmit_directly(command)

    def end_turn(self, command: EndTurn) -> None:
        """End the person's turn."""
        self._note_input("end_turn", command)
        self._session.end_turn(command)

    def clear_input(self) -> None:
        """Drop the audio of the turn that has not ended yet."""
        self._note_input("clear_input")
        self._session.clear_input()

    def request(self, command: RequestReply | Say) -> None:
        """Request a reply or scripted text."""
        self._note_input("request", command)
        self._session.request(command)

    def discard_reply(self, item_id: str) -> None:
        """Drop the automatic reply to the turn that is ending."""
        self._note_input("discard_reply", item_id)
        self._session.discard_reply(item_id)

    def restore_reply(self) -> None:
        """Restore the reply to a turn that was discarded."""
        self._note_input("restore_reply")
        self._session.restore_reply()

    def interrupt(self, *, keep_results: bool = False) -> int:
        """Make everything that was made or requested so far stale."""
        self._note_input("interrupt", keep_results)
        return self._session.interrupt(keep_results=keep_results)

    def send_tool_result(self, result: SendToolResult) -> None:
        """Send a tool's result."""
        self._note_input("send_tool_result", result)
        self._session.send_tool_result(result)

    def update(self, change: UpdateSession) -> None:
        """Change instructions or tools."""
        self._note_input("update", change)
        self._session.update(change)

    def roll_over(self, reason: str, within_s: float | None) -> None:
        """Switch to a new connection."""
        self._note_input("roll_over", reason, within_s)
        self._session.roll_over(reason, within_s)
