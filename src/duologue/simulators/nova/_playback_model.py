"""What a client that plays in real time has played so far.

The service sends the final text of a sentence when the sentence has been played, and an
interruption cuts off what has not been played. No client reports that: the model assumes that audio
is played as soon as it was sent, without gaps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from duologue.clock import Clock, Timer
from duologue.simulators.nova._blocks import Blocks


@dataclass(slots=True, eq=False)
class ConversationEntry:
    """An entry of the conversation; of a reply it has only the complete spoken sentences."""

    role: Literal["USER", "ASSISTANT"]
    text: str


@dataclass(slots=True, eq=False)
class PlayedReply:
    """One reply, with its item in the backend's history and its spoken sentences."""

    backend_item_id: str = ""
    begins_at: float | None = None
    ends_at: float = 0.0
    seconds: float = 0.0
    entry: ConversationEntry = field(default_factory=lambda: ConversationEntry("ASSISTANT", ""))

    def played_ms(self, now: float) -> int:
        """Return how much of its audio has been played at ``now``, in ms."""
        if self.begins_at is None:
            return 0
        return round(max(0.0, min(now - self.begins_at, self.seconds)) * 1000)


@dataclass(frozen=True, slots=True)
class _Sentence:
    due: float
    text: str
    last: bool
    reply: PlayedReply


class PlaybackModel:
    """Sends each sentence of a reply once it has been played, by the clock.

    It calls ``entry_spoken`` when the first sentence of a reply has been spoken; the later
    sentences are added to that entry.
    """

    def __init__(
        self, blocks: Blocks, clock: Clock, entry_spoken: Callable[[ConversationEntry], None]
    ) -> None:
        self._blocks = blocks
        self._entry_spoken = entry_spoken
        self._clock = clock
        self._sentences: deque[_Sentence] = deque()
        self._replies: list[PlayedReply] = []
        self._timer: Timer | None = None
        self.ends_at = 0.0
        """When all audio that was sent will have been played, in clock seconds."""

    @property
    def is_playing(self) -> bool:
        """Whether audio is still being played, or a sentence waits to be sent."""
        return bool(self._sentences) or self.ends_at > self._clock.now()

    def add_audio(self, reply: PlayedReply, seconds: float) -> None:
        """Schedule ``seconds`` of audio behind what is already scheduled."""
        begins = max(self._clock.now(), self.ends_at)
        if reply.begins_at is None:
            reply.begins_at = begins
        if reply not in self._replies:
            self._replies.append(reply)
        reply.seconds += seconds
        reply.ends_at = self.ends_at = begins + seconds

    def add_sentence(self, reply: PlayedReply, text: str, *, last: bool) -> None:
        """Add a sentence whose audio has been sent; ``last`` for the last one of its reply."""
        self._sentences.append(_Sentence(max(self._clock.now(), self.ends_at), text, last, reply))
        self.catch_up()

    def catch_up(self) -> None:
        """Send the sentences that have been spoken by now, unless an audio block is open."""
        now = self._clock.now()
        while self._sentences and self._sentences[0].due <= now and not self._blocks.audio_open:
            self._send_sentence(self._sentences.popleft())
        self._replies = [reply for reply in self._replies if reply.ends_at > now]
        self.close()
        if self._sentences and self._sentences[0].due > now:
            self._timer = self._clock.call_at(self._sentences[0].due, self.catch_up)

    def interrupt(self) -> Sequence[PlayedReply]:
        """Send what has been spoken by now, drop the rest, and return the replies cut off.

        No audio block may be open.
        """
        self.catch_up()
        left, self._replies = self._replies, []
        self._sentences.clear()
        self.ends_at = self._clock.now()
        self.close()
        return left

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _send_sentence(self, sentence: _Sentence) -> None:
        if not sentence.text:
            return
        self._blocks.send_spoken(sentence.text, "END_TURN" if sentence.last else "PARTIAL_TURN")
        self._blocks.send_usage("output", text=sentence.text)
        entry = sentence.reply.entry
        if entry.text:
            entry.text += f" {sentence.text}"
        else:
            entry.text = sentence.text
            self._entry_spoken(entry)
