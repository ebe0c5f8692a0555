"""Define what speaks for a model that answers in text."""

from __future__ import annotations

from typing import Protocol

from duologue.realtime.codec import Connection


class ReplyVoice(Protocol):
    """Speaks the text of a model's replies; it lasts as long as the session."""

    rate: int
    """Hz of the audio that it makes."""

    async def run(self) -> None:
        """Keep the voice ready until cancelled; return if there is nothing to keep.

        Raises:
            SessionError: The voice can't be used any more.
        """

    def speak_for(self, connection: Connection) -> Connection:
        """Return ``connection`` with replies that are spoken.

        It emits `ReplyAudio` for the text of a reply, at `rate`, and `ReplyText` with the times of
        the words where the voice tells them. It ends a reply when all of its audio was made.
        """
        ...
