"""One conversation's audio and turns, over the connections of a recognition service (sans-IO).

    push ──> kept audio ──> codec.audio ──> messages to send
                 |
                 +── sent again on the next connection, from the end of the last turn on

A connection counts its turns from 0 and its seconds from its own first audio. Here turns and
seconds go on over all connections:

- Audio is kept until the turn that it belongs to has ended, at most ``keep_s``. A new connection
  gets what is kept before anything else, so the words of an open turn are recognised again, whole.
- A turn that was open when the connection was lost keeps its number. Its start is reported once.
- Audio that was dropped because the outage was too long is reported as `AudioLost`.

Positions are samples since the conversation began, silence that is sent in place of missing audio
included: the newest position is always now, so a position tells a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from duologue.audio import Samples
from duologue.errors import SessionError
from duologue.pipeline.interfaces import (
    AudioLost,
    RecognitionEvent,
    TimedWord,
    TurnEnded,
    TurnMayEnd,
    TurnResumed,
    TurnStarted,
    TurnUpdated,
)
from duologue.pipeline.stt_codec import RecognitionFailed, RecognizerTraits, STTCodec

KEEP_S = 30.0
"""Seconds of audio that are kept for the next connection at most."""
UNKNOWN_END_S = 0.3
"""Seconds of audio before the report of a turn's end that may belong to the next turn, for services
that do not tell where a turn ended. More may, if there is a pause before it.
"""
MAX_LATE_END_S = 2.0
"""Seconds before the report in which that pause is looked for."""
PAUSE_S = 0.2
"""Seconds of such a pause."""
LEAD_S = 1.0
"""Seconds of audio that are kept between turns, so that the beginning of a word is not lost."""
LOUD_PEAK = 600
"""Peak (-35 dB) above which audio may be speech."""


class RecognitionLog[M]:
    """The turns of one conversation, whose audio has ``rate`` Hz."""

    def __init__(self, traits: RecognizerTraits, rate: int, *, keep_s: float = KEEP_S) -> None:
        self.traits = traits
        self.rate = rate
        self._limit = int(keep_s * rate)
        self._codec: STTCodec[M] | None = None
        self._lead = int(LEAD_S * rate)
        self._kept: deque[tuple[Samples, bool]] = deque()
        """Audio, and whether it is loud."""
        self._start = 0
        """Position of the oldest sample that is kept."""
        self._end = 0
        """Position behind the newest sample."""
        self._sent_to = 0
        """Position up to which a service has got the audio, or never will."""
        self._connection_start = 0
        """Position of the connection's first audio."""
        self._first_turn = 0
        """Number of the connection's turn 0."""
        self._turn = 0
        """Number of the turn that is open, or comes next."""
        self._open = False
        self._text = ""
        """The newest transcript of the turn that is open."""
        self._keeps_speech = False
        """Whether some of the kept audio is loud: between turns only speech is worth keeping."""
        self._settling = False
        """Whether a final transcript was asked for, and has not come."""
        self._replaying = False
        """Whether speech was sent again of which the service has told nothing."""
        self.is_spoiled = False
        """Whether the connection got a turn again that has ended before it was recognised: it would
        be taken for the beginning of the next turn, so the connection has to be replaced.
        """
        self.loud_s = 0.0
        """Seconds of loud audio since the service's last message."""
        self._messages: list[M] = []

    @property
    def in_turn(self) -> bool:
        """Whether a turn is open."""
        return self._open

    @property
    def catching_up(self) -> bool:
        """Whether the service lacks audio, or has not recognised what it got again."""
        return self._codec is None or self._replaying

    @property
    def kept_s(self) -> float:
        """Seconds of audio that are kept."""
        return (self._end - self._start) / self.rate

    def messages(self) -> list[M]:
        """Return, once, the messages to send."""
        messages, self._messages = self._messages, []
        return messages

    def push(self, samples: Samples) -> None:
        """Add the next audio."""
        loud = is_loud(samples)
        self._kept.append((samples, loud))
        self._end += len(samples)
        if loud:
            self._keeps_speech = True
        limit = self._limit if self._open or self._keeps_speech else self._lead
        while self._end - self._start > limit:
            self._start += len(self._kept.popleft()[0])
            if self._codec is None and self._sent_to < self._start and limit < self._limit:
                self._sent_to = self._start  # Silence that nobody misses.
        if self._codec is not None:
            self._messages += self._codec.audio(samples)
            self._sent_to = self._end
            if loud:
                self.loud_s += len(samples) / self.rate

    def settle(self) -> None:
        """Ask for a final transcript of the turn so far, also on the next connection."""
        self._settling = True
        if self._codec is not None:
            self._messages += self._codec.settle()

    def end_turn(self) -> list[RecognitionEvent]:
        """End the turn.

        A service that finds the turns is told to, and reports it. If it can't be told, the turn
        ends here with its newest transcript. Where the turns are found here, it is over at once.
        """
        ended: list[RecognitionEvent] = []
        if self.traits.turns == "service" and not self.traits.ends_turns:
            if self._open:
                ended.append(TurnEnded(self._turn, self._text))
                self._end_turn(self._turn, None)
            return ended
        if self._codec is not None:
            self._messages += self._codec.end_turn()
        self._settling = False
        if self.traits.turns == "local":
            self.is_spoiled = self._codec is not None and self._replaying
            self._end_turn(self._turn, None)
        return ended

    def connected(self, codec: STTCodec[M]) -> list[RecognitionEvent]:
        """Continue on a new connection, which gets the kept audio first."""
        self._codec = codec
        self._connection_start, self._first_turn = self._start, self._turn
        self.loud_s, self.is_spoiled = 0.0, False
        self._messages += codec.open()
        for samples, _ in self._kept:
            self._messages += codec.audio(samples)
        if self._settling:
            self._messages += codec.settle()
        self._replaying = self._keeps_speech
        lost = self._start - self._sent_to
        self._sent_to = self._end
        return [AudioLost(lost / self.rate)] if lost > 0 else []

    def disconnected(self) -> None:
        """Keep audio until there is a connection."""
        self._codec = None
        self._messages.clear()

    def received(self, message: M) -> tuple[list[RecognitionEvent], SessionError | None]:
        """Return what a message means, and the error if it ends the connection."""
        if self._codec is None or self.is_spoiled:
            return [], None
        self.loud_s = 0.0
        events: list[RecognitionEvent] = []
        for event in self._codec.decode(message):
            if isinstance(event, RecognitionFailed):
                if not event.benign:
                    return events, event.error
            else:
                events += self._translate(event)
        return events, None

    def _translate(self, event: RecognitionEvent) -> list[RecognitionEvent]:
        """Return an event with our turn numbers and seconds, after a start that was left out."""
        if isinstance(event, AudioLost):
            return [event]
        turn = self._first_turn + event.turn
        if turn < self._turn:
            return []  # It has ended.
        started: list[RecognitionEvent] = []
        if not self._open:
            at = event.at if isinstance(event, TurnStarted) else None
            if isinstance(event, TurnEnded) and not event.text:
                return []  # Nothing of it was reported, and it has no words.
            started.append(TurnStarted(turn, self._seconds(at)))
            self._open, self._turn, self._text = True, turn, ""
        match event:
            case TurnStarted():
                return started
            case TurnUpdated(text=text, words=words, final=final):
                self._text, self._replaying = text, False
                self._settling = self._settling and not final
                return [*started, replace(event, turn=turn, words=self._words(words))]
            case TurnMayEnd() | TurnResumed():
                return [*started, replace(event, turn=turn)]
            case TurnEnded(at=at, words=words):
                self._end_turn(turn, at)
                at, words = self._seconds(at), self._words(words)
                return [*started, replace(event, turn=turn, at=at, words=words)]

    def _end_turn(self, turn: int, at: float | None) -> None:
        self._open, self._turn = False, turn + 1
        if at is None:
            position = self._find_pause()
        else:
            position = self._connection_start + int(at * self.rate)
        position = min(position, self._end)
        while self._kept and self._start + len(self._kept[0][0]) <= position:
            self._start += len(self._kept.popleft()[0])
        self._keeps_speech = any(loud for _, loud in self._kept)

    def _find_pause(self) -> int:
        """Return where a turn ended that is over now: in the last pause, or a little before now."""
        latest = self._end - int(UNKNOWN_END_S * self.rate)
        position, silent = self._end, 0
        for samples, loud in reversed(self._kept):
            if self._end - position > MAX_LATE_END_S * self.rate:
                break
            if loud:
                silent = 0
            else:
                silent += len(samples)
                if silent >= PAUSE_S * self.rate:
                    return min(latest, position - len(samples) + silent)
            position -= len(samples)
        return latest

    def _seconds(self, at: float | None) -> float | None:
        return None if at is None else at + self._connection_start / self.rate

    def _words(self, words: Sequence[TimedWord]) -> Sequence[TimedWord]:
        offset = self._connection_start / self.rate
        return [TimedWord(word.text, word.start + offset, word.end + offset) for word in words]


def is_loud(samples: Samples) -> bool:
    """Return whether audio may be speech."""
    return len(samples) > 0 and int(np.maximum.reduce(samples)) > LOUD_PEAK
