"""One turn of the model: its sound in bursts, its words along with it, and when it is over."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pybase64

from duologue.audio import Resampler, Samples
from duologue.clock import Clock, Timer
from duologue.items import Json
from duologue.simulator.fields import Object
from duologue.simulator.gemini.conversation import Cost, audio_tokens, text_tokens
from duologue.simulator.gemini.schema import OUT_RATE

type Emit = Callable[[str, Object], None]

_WORDS = re.compile(r"\s*\S+\s*$|\s*\S+|\s+")

MESSAGE_SAMPLES = OUT_RATE // 10
"""Sound of one message at most: 100 ms."""
BURST_SAMPLES = OUT_RATE * 2 // 5
"""Sound that is sent at once at most, when the pace is limited: 400 ms."""
SOUND = f"audio/pcm;rate={OUT_RATE}"
"""Media type of the audio; Vertex AI leaves the rate out."""
THOUGHT = "**Considering the Request**\n\nI've read it, and I know how to answer.\n\n\n"
THOUGHT_TOKENS = 28
_CHARS_PER_S = 15
_LEAD_S = 1.0
"""Words are sent as fast as they are spoken, and so much before their sound."""


def content(name: str, value: Json) -> tuple[str, Object]:
    """A message of the server's content: what it is called here, and itself."""
    return f"serverContent.{name}", {"serverContent": {name: value}}


def sound_message(samples: Samples, mime: str = SOUND) -> tuple[str, Object]:
    """A message with sound, int16 at 24 kHz."""
    data = str(pybase64.b64encode_as_string(samples.astype("<i2", copy=False).tobytes()))
    blob: Json = {"mimeType": mime, "data": data}
    return content("modelTurn", {"parts": [{"inlineData": blob}]})


@dataclass(frozen=True, slots=True)
class Call:
    """The model calls a function; ``args`` as JSON, ``brain_id`` is what the brain calls it."""

    id: str
    name: str
    args: Json
    brain_id: str


@dataclass(slots=True, eq=False)
class Answer:
    """One turn of the model under way. ``pace`` times as fast as speech; 0: at once."""

    emit: Emit
    clock: Clock
    sent: Callable[[Answer], None]
    """Is told when all that was made since the last time has been sent."""
    prompt: Cost
    rate: int
    text: bool
    words: bool
    pace: float
    vertex: bool = False
    """Whether its messages are those of Vertex AI."""
    thinks: bool = False
    """Whether it begins with thoughts."""
    thoughts: int = 0
    """Tokens of its thoughts."""
    calls: list[Call] = field(default_factory=list)
    """Calls of this stretch that the client has not been told of."""
    samples: int = 0
    """Sound sent so far, at 24 kHz."""
    ends_at: float = 0.0
    """When what was sent has been played, in s of the clock."""
    made: bool = False
    """The brain has made all of this stretch."""
    _transcribing: bool = False
    _said: str = ""
    _told: int = 0
    _spent: Cost = Cost()  # noqa: RUF009 - frozen
    _unsaid: deque[str] = field(default_factory=deque)
    _queue: deque[Samples] = field(default_factory=deque)
    _next: float = 0.0
    _timer: Timer | None = None
    _resampler: Resampler | None = None

    @property
    def cost(self) -> Cost:
        """What it costs so far."""
        return self._spent + Cost(audio=audio_tokens(self.samples, OUT_RATE))

    def begin(self) -> None:
        """The brain makes the next stretch of it."""
        self.made = False

    def think(self) -> None:
        """Send the thoughts before the words, once."""
        if self.thinks:
            self.thinks = False
            self.thoughts = THOUGHT_TOKENS
            part: Json = {"text": THOUGHT, "thought": True}
            self.emit(*content("modelTurn", {"parts": [part]}))

    def say(self, text: str) -> None:
        """The next words."""
        self.think()
        if self.text:
            self._said += text
            self._spent += Cost(text=text_tokens(text))
            self.emit(*content("modelTurn", {"parts": [{"text": text}]}))
            return
        self._unsaid.extend(_WORDS.findall(text))
        self._tell_words()

    def speak(self, samples: Samples) -> None:
        """The next sound, at the brain's rate."""
        if self.text:
            return
        self.think()
        if self._resampler is None:
            self._resampler = Resampler(self.rate, OUT_RATE)
        self._queue.append(self._resampler.push(samples))
        self._pump()

    def call(self, call: Call) -> None:
        """The model calls a function; told once its sound has been sent."""
        self.thinks = False
        self.calls.append(call)

    def spend(self, cost: Cost) -> None:
        """Add tokens to its cost."""
        self._spent += cost

    def finish(self) -> None:
        """The brain has made all of this stretch."""
        if self._resampler is not None:
            self._queue.append(self._resampler.flush())
            self._resampler = None
        self.made = True
        self._pump()

    def cut(self) -> None:
        """Send nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def take_parts(self) -> list[Json]:
        """What was said in this stretch, as parts of a content."""
        said, self._said, self._told = self._said, "", 0
        return [{"text": said}] if said else []

    def _pump(self) -> None:
        """Send as much as may be sent now; the rest by and by."""
        if self._timer is not None:
            return
        while self._queue:
            now = self.clock.now()
            if self.pace and now < self._next:
                self._timer = self.clock.call_at(self._next, self._go_on)
                return
            burst = self._burst()
            if self.pace:
                seconds = burst / OUT_RATE / self.pace
                self._next = max(now, self._next) + seconds
        if self.made:
            while self._unsaid:
                self._tell_word()
            self._end_words()
            self.sent(self)

    def _go_on(self) -> None:
        self._timer = None
        self._pump()

    def _burst(self) -> int:
        """Send one burst; how many samples it had."""
        sent = 0
        while self._queue and (sent < BURST_SAMPLES or not self.pace):
            samples = self._queue.popleft()
            if len(samples) > MESSAGE_SAMPLES:
                self._queue.appendleft(samples[MESSAGE_SAMPLES:])
                samples = samples[:MESSAGE_SAMPLES]
            if len(samples):
                sent += len(samples)
                self._send(samples)
        return sent

    def _send(self, samples: Samples) -> None:
        self.samples += len(samples)
        self.ends_at = max(self.ends_at, self.clock.now()) + len(samples) / OUT_RATE
        self.emit(*sound_message(samples, "audio/pcm" if self.vertex else SOUND))
        self._tell_words()

    def _tell_words(self) -> None:
        """Tell the words that are due by how much sound was sent."""
        due = (self.samples / OUT_RATE + _LEAD_S) * _CHARS_PER_S
        while self._unsaid and (self.vertex or self._told < due):
            self._tell_word()

    def _tell_word(self) -> None:
        word = self._unsaid.popleft()
        self._told += len(word)
        self._said += word
        if not self.words:
            return
        if self.vertex and not self._transcribing:
            self._transcribing = True
            self.emit(*content("outputTranscription", {}))
        self.emit(*content("outputTranscription", {"text": word}))

    def _end_words(self) -> None:
        """Mark the transcript of this stretch as finished, which only Vertex AI does."""
        if self._transcribing:
            self._transcribing = False
            self.emit(*content("outputTranscription", {"finished": True}))
