"""One turn of the model on its way to the client: audio in bursts, transcript, and end."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pybase64

from duologue.audio import Resampler, Samples
from duologue.clock import Clock, Timer
from duologue.json_types import Json, JsonObject
from duologue.simulators.gemini._conversation import Cost, audio_tokens, text_tokens
from duologue.simulators.gemini._schema import OUT_RATE

type Emit = Callable[[str, JsonObject], None]

_WORDS = re.compile(r"\s*\S+\s*$|\s*\S+|\s+")

MESSAGE_SAMPLES = OUT_RATE // 10
"""Audio of one message at most: 100 ms."""
BURST_SAMPLES = OUT_RATE * 2 // 5
"""Audio that is sent in one burst at most if the pace is limited: 400 ms."""
AUDIO_MIME = f"audio/pcm;rate={OUT_RATE}"
"""Media type of the audio; Vertex AI leaves the rate out."""
THOUGHT = "**Considering the Request**\n\nI've read it, and I know how to answer.\n\n\n"
THOUGHT_TOKENS = 28
_CHARS_PER_S = 15
_TRANSCRIPT_LEAD_S = 1.0
"""The transcript is sent at the pace of speech, and this many seconds ahead of its audio."""


def content_message(name: str, value: Json) -> tuple[str, JsonObject]:
    """Return the kind and the JSON of a ``serverContent`` message."""
    return f"serverContent.{name}", {"serverContent": {name: value}}


def audio_message(samples: Samples, mime: str = AUDIO_MIME) -> tuple[str, JsonObject]:
    """Return the kind and the JSON of an audio message; ``samples`` are int16 at 24 kHz."""
    data = str(pybase64.b64encode_as_string(samples.astype("<i2", copy=False).tobytes()))
    blob: Json = {"mimeType": mime, "data": data}
    return content_message("modelTurn", {"parts": [{"inlineData": blob}]})


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A function call of the model; ``backend_call_id`` is the backend's id of it."""

    id: str
    name: str
    args: Json
    backend_call_id: str


@dataclass(slots=True, eq=False)
class OutgoingReply:
    """One turn of the model, sent ``pace`` times as fast as speech; 0 sends everything at once.

    A turn has several segments if the model calls functions: a new segment follows their results.
    """

    emit: Emit
    clock: Clock
    segment_sent: Callable[[OutgoingReply], None]
    """Called when all that the current segment has was sent."""
    prompt: Cost
    rate: int
    text_only: bool
    with_transcript: bool
    pace: float
    vertex: bool = False
    """Whether its messages are those of Vertex AI."""
    sends_thoughts: bool = False
    """Whether it begins with thoughts."""
    thought_tokens: int = 0
    """Tokens of its thoughts."""
    calls: list[FunctionCall] = field(default_factory=list)
    """Function calls of this segment that have not been sent."""
    samples_sent: int = 0
    """Samples of audio sent so far, at 24 kHz."""
    ends_at: float = 0.0
    """When all audio that was sent will have been played, in seconds of the clock."""
    complete: bool = False
    """Whether the backend has generated all of this segment."""
    _transcribing: bool = False
    _transcript: str = ""
    _characters_sent: int = 0
    _cost: Cost = Cost()  # noqa: RUF009 - frozen
    _unsent_words: deque[str] = field(default_factory=deque)
    _unsent_audio: deque[Samples] = field(default_factory=deque)
    _next_burst_at: float = 0.0
    _timer: Timer | None = None
    _resampler: Resampler | None = None

    @property
    def cost(self) -> Cost:
        """Tokens of the turn so far."""
        return self._cost + Cost(audio=audio_tokens(self.samples_sent, OUT_RATE))

    def begin_segment(self) -> None:
        """Begin the next segment."""
        self.complete = False

    def send_thoughts(self) -> None:
        """Send the thoughts before anything else, once."""
        if self.sends_thoughts:
            self.sends_thoughts = False
            self.thought_tokens = THOUGHT_TOKENS
            part: Json = {"text": THOUGHT, "thought": True}
            self.emit(*content_message("modelTurn", {"parts": [part]}))

    def add_text(self, text: str) -> None:
        """Add text."""
        self.send_thoughts()
        if self.text_only:
            self._transcript += text
            self._cost += Cost(text=text_tokens(text))
            self.emit(*content_message("modelTurn", {"parts": [{"text": text}]}))
            return
        self._unsent_words.extend(_WORDS.findall(text))
        self._send_due_words()

    def add_audio(self, samples: Samples) -> None:
        """Add audio at the backend's rate."""
        if self.text_only:
            return
        self.send_thoughts()
        if self._resampler is None:
            self._resampler = Resampler(self.rate, OUT_RATE)
        self._unsent_audio.append(self._resampler.push(samples))
        self._send_due()

    def add_call(self, call: FunctionCall) -> None:
        """Add a function call, which is sent after the segment's audio."""
        self.sends_thoughts = False
        self.calls.append(call)

    def add_cost(self, cost: Cost) -> None:
        """Add tokens to the turn's cost."""
        self._cost += cost

    def end_segment(self) -> None:
        """Mark the segment as complete."""
        if self._resampler is not None:
            self._unsent_audio.append(self._resampler.flush())
            self._resampler = None
        self.complete = True
        self._send_due()

    def cancel(self) -> None:
        """Stop sending."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def take_parts(self) -> list[Json]:
        """Remove and return what was said in this segment, as parts of a content."""
        text, self._transcript, self._characters_sent = self._transcript, "", 0
        return [{"text": text}] if text else []

    def _send_due(self) -> None:
        """Send as much as is due now, and schedule the rest."""
        if self._timer is not None:
            return
        while self._unsent_audio:
            now = self.clock.now()
            if self.pace and now < self._next_burst_at:
                self._timer = self.clock.call_at(self._next_burst_at, self._timer_due)
                return
            burst = self._send_burst()
            if self.pace:
                seconds = burst / OUT_RATE / self.pace
                self._next_burst_at = max(now, self._next_burst_at) + seconds
        if self.complete:
            while self._unsent_words:
                self._send_word()
            self._finish_transcript()
            self.segment_sent(self)

    def _timer_due(self) -> None:
        self._timer = None
        self._send_due()

    def _send_burst(self) -> int:
        """Send one burst and return its number of samples."""
        sent = 0
        while self._unsent_audio and (sent < BURST_SAMPLES or not self.pace):
            samples = self._unsent_audio.popleft()
            if len(samples) > MESSAGE_SAMPLES:
                self._unsent_audio.appendleft(samples[MESSAGE_SAMPLES:])
                samples = samples[:MESSAGE_SAMPLES]
            if len(samples):
                sent += len(samples)
                self._send_audio(samples)
        return sent

    def _send_audio(self, samples: Samples) -> None:
        self.samples_sent += len(samples)
        self.ends_at = max(self.ends_at, self.clock.now()) + len(samples) / OUT_RATE
        self.emit(*audio_message(samples, "audio/pcm" if self.vertex else AUDIO_MIME))
        self._send_due_words()

    def _send_due_words(self) -> None:
        """Send the words that are due by the amount of audio sent."""
        due = (self.samples_sent / OUT_RATE + _TRANSCRIPT_LEAD_S) * _CHARS_PER_S
        while self._unsent_words and (self.vertex or self._characters_sent < due):
            self._send_word()

    def _send_word(self) -> None:
        word = self._unsent_words.popleft()
        self._characters_sent += len(word)
        self._transcript += word
        if not self.with_transcript:
            return
        if self.vertex and not self._transcribing:
            self._transcribing = True
            self.emit(*content_message("outputTranscription", {}))
        self.emit(*content_message("outputTranscription", {"text": word}))

    def _finish_transcript(self) -> None:
        """Mark the transcript of this segment as finished, which only Vertex AI does."""
        if self._transcribing:
            self._transcribing = False
            self.emit(*content_message("outputTranscription", {"finished": True}))
