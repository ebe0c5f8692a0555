"""A person from files: speaks recorded clips, and records the conversation."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np

from duologue.audio import FRAME_MS, AudioFrame, Resampler
from duologue.clock import Clock, LoopClock
from duologue.edges._recording import RecordingTimeline, check_writable
from duologue.edges.audio_file import load_audio
from duologue.edges.protocol import AgentInput
from duologue.errors import ConfigError
from duologue.quality import Quality

logger = logging.getLogger(__name__)

type Source = str | PathLike[str] | AudioFrame

_FRAME = FRAME_MS / 1000
_FRAMES_PER_SECOND = 1000 // FRAME_MS


@dataclass(frozen=True, slots=True)
class Interjection:
    """Something said into the agent's answer, once it has spoken for ``after_agent_speech_s``.

    Counted in seconds of agent sound since the person's last clip ended, and not before so many
    clips of the edge's ``source`` were spoken (0: the greeting counts as an answer too).
    """

    audio: Source
    after_agent_speech_s: float = 1.0
    after_clips: int = 1


class Edge:
    """Speaks one file or several, in real time by the clock; in virtual time, in no time.

    ``source`` is one clip or a sequence: each after the first begins when the agent has been
    settled for ``settle_s``; ``interjections`` go in between, in order. After the last, silence,
    until the agent was settled for ``settle_s`` or ``wait_s`` have passed; then the person is
    gone. ``lead_in_s`` of silence comes first. With ``wait_for_greeting`` also the first clip waits
    for the agent to settle; None: it does where the agent has begun to say something, or was asked
    to, in the first 20 ms. ``out`` gets a stereo WAV at ``rate`` Hz.

    Clips are sent at the rate of the first one. Raises `ConfigError` for files that can't be
    read or written.
    """

    def __init__(
        self,
        source: Source | Sequence[Source],
        out: str | PathLike[str] | None = None,
        *,
        rate: int = 24000,
        interjections: Sequence[Interjection] = (),
        lead_in_s: float = 0.0,
        wait_for_greeting: bool | None = None,
        settle_s: float = 1.5,
        wait_s: float = 60.0,
        clock: Clock | None = None,
    ) -> None:
        sources: tuple[Source, ...] = (
            (source,) if isinstance(source, (str, PathLike, AudioFrame)) else tuple(source)
        )
        if not sources:
            raise ConfigError("a wav edge needs at least one file or AudioFrame")
        if rate <= 0 or rate % _FRAMES_PER_SECOND:
            raise ConfigError(f"rate must be in Hz and a multiple of 50, not {rate}")
        first = load_audio(sources[0])
        self.input_rate = first.rate
        """Hz of the person's sound."""
        self._clips = deque([first, *(load_audio(clip, first.rate) for clip in sources[1:])])
        self._interjections = deque(
            (item.after_agent_speech_s, item.after_clips, load_audio(item.audio, first.rate))
            for item in interjections
        )
        self._rate = rate
        self._lead_in = round(lead_in_s * first.rate)
        self._wait_for_greeting = wait_for_greeting
        self._settle_s = settle_s
        self._wait_s = wait_s
        self._clock: Clock = LoopClock() if clock is None else clock
        self._recording_path = out
        if out is not None:
            check_writable(out)
        self._recording: RecordingTimeline | None = None
        self._recorded_s = 0.0
        self._started_at: float | None = None
        self._speaking: deque[AudioFrame] = deque()
        self._agent_samples = 0
        self._clips_begun = 0
        self._resampler = Resampler(first.rate, rate)
        self._silence = np.zeros(rate // _FRAMES_PER_SECOND, np.int16)

    @property
    def output_rate(self) -> int:
        """Hz of the frames that `play` takes, and of the recording."""
        return self._rate

    @property
    def quality(self) -> Quality:
        """Nobody listens: by the clock."""
        return "estimated"

    @property
    def lead_ms(self) -> int:
        """One frame."""
        return FRAME_MS

    @property
    def latency_ms(self) -> float:
        """None at all."""
        return 0.0

    @property
    def recorded_s(self) -> float:
        """Seconds of the conversation in the file ``out``; 0 until it exists."""
        return self._recorded_s

    @property
    def recording_failure(self) -> str | None:
        """Why the recording ended before the conversation; None if it did not."""
        return None if self._recording is None else self._recording.failure

    def interject(self, audio: Source) -> None:
        """Say this now, or as soon as what is being said is over."""
        self._speak(load_audio(audio, self.input_rate))

    async def run(self, agent: AgentInput, ready: Callable[[], None]) -> None:
        """Speak, listen, and leave; the recording is there when this returns or is cancelled."""
        if self._recording_path is not None:
            self._recording = RecordingTimeline(self._recording_path, self._rate)
        try:
            ready()
            await agent.wait_until_listening()
            self._started_at = self._clock.now()
            if self._lead_in:
                self._speak(AudioFrame(np.zeros(self._lead_in, np.int16), self.input_rate))
            if self._wait_for_greeting is False:
                self._speak_next_clip()
            await self._run_ticks(agent, self._started_at)
        finally:
            self._started_at = None
            if self._recording is not None:
                self._recording.add_person(self._resampler.flush())
                self._recording.close()
                self._recorded_s = self._recording.seconds

    async def _run_ticks(self, person: AgentInput, started_at: float) -> None:
        quiet_since = settled_since = None
        tick = 0
        while True:
            tick += 1
            due = started_at + tick * _FRAME
            # Late ticks are made up for at once, so that the file never drifts from the clock.
            await self._clock.sleep(max(0.0, due - self._clock.now()))
            if tick == 1 and self._wait_for_greeting is None and person.is_idle:
                self._speak_next_clip()
            if self._speaking:
                quiet_since = settled_since = None
            elif quiet_since is None:
                quiet_since = due
            # A frame reaches the agent when its last sample was spoken.
            self._send_frame(person, self._next_frame(tick), tick)
            if quiet_since is None:
                continue
            if not person.is_idle:
                settled_since = None
            elif settled_since is None:
                settled_since = due
            settled = settled_since is not None and due - settled_since >= self._settle_s
            given_up = due - quiet_since >= self._wait_s
            if given_up and not settled:
                logger.warning("the agent was not settled after %g s", self._wait_s)
            if settled or given_up:
                if not self._clips:
                    return
                self._speak_next_clip()

    def _speak_next_clip(self) -> None:
        self._clips_begun += 1
        self._speak(self._clips.popleft())

    def _speak(self, clip: AudioFrame) -> None:
        self._speaking.append(clip)
        self._agent_samples = 0

    def _next_frame(self, tick: int) -> AudioFrame:
        """The person's next 20 ms; one sample more or less where the rate has no whole number."""
        rate = self.input_rate
        out = np.zeros(
            tick * rate // _FRAMES_PER_SECOND - (tick - 1) * rate // _FRAMES_PER_SECOND, np.int16
        )
        filled = 0
        while self._speaking and filled < len(out):
            clip = self._speaking.popleft().samples
            part = clip[: len(out) - filled]
            out[filled : filled + len(part)] = part
            filled += len(part)
            if len(part) < len(clip):
                self._speaking.appendleft(AudioFrame(clip[len(part) :], rate))
            else:
                self._agent_samples = 0
        return AudioFrame(out, rate)

    def _send_frame(self, person: AgentInput, frame: AudioFrame, tick: int) -> None:
        person.push_audio(frame)
        if self._recording is not None:
            self._recording.add_person(self._resampler.push(frame.samples))
            if tick % _FRAMES_PER_SECOND == 0:
                # What is a second old was played; nothing can clear it any more.
                self._recording.commit(
                    min(self._recording.person_end, (tick // _FRAMES_PER_SECOND - 1) * self._rate)
                )

    def play(self, frame: AudioFrame | None) -> None:
        """Take the agent's next 20 ms; it plays behind the frame before, or now."""
        if self._started_at is None:
            return
        if self._recording is not None:
            samples = self._silence if frame is None else frame.samples
            self._recording.add_agent(self._position(), samples)
        if frame is not None and not self._speaking:
            self._agent_samples += len(frame)
            if self._interjections:
                after, clips, clip = self._interjections[0]
                if self._clips_begun >= clips and self._agent_samples >= after * self._rate:
                    self._interjections.popleft()
                    self._speak(clip)

    def clear(self) -> None:
        """Drop what was not played by now."""
        if self._started_at is not None and self._recording is not None:
            self._recording.clear_agent(self._position())

    def _position(self) -> int:
        assert self._started_at is not None  # noqa: S101  # both callers looked
        return round((self._clock.now() - self._started_at) * self._rate)
