"""Play a person from files: speak recorded clips, and record the conversation."""

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
    """A clip that interrupts the agent.

    Args:
        audio: The clip: a file or a frame.
        after_agent_speech_s: Seconds of agent audio, counted since the person's last clip ended,
            after which the clip begins.
        after_clips: Clips of the edge's ``source`` that must have begun before; with 0 the clip may
            interrupt the greeting.
    """

    audio: Source
    after_agent_speech_s: float = 1.0
    after_clips: int = 1


class Edge:
    """Speaks one or more clips in real time, or in virtual time without waiting.

    Each clip after the first begins when the agent has been idle for ``settle_s``. Interjections
    come between them, in order. After the last clip the edge sends silence until the agent has been
    idle for ``settle_s``, or until ``wait_s`` have passed; then the person leaves.

    Args:
        source: One clip, or several: files or frames. All are sent at the rate of the first one.
        out: Stereo WAV file of the conversation; None records nothing.
        rate: Rate in Hz of the frames that `play` accepts, and of the recording; a multiple of 50.
        interjections: Clips that interrupt the agent.
        lead_in_s: Seconds of silence before the first clip.
        wait_for_greeting: Whether the first clip waits until the agent has been idle for
            ``settle_s``. None waits if the agent has begun to speak, or was asked to, within the
            first 20 ms.
        settle_s: Seconds for which the agent must be idle before the next clip begins.
        wait_s: Longest wait in seconds for the agent to become idle.
        clock: Clock of the edge; by default that of the event loop.

    Raises:
        ConfigError: A file can't be read or written, there is no clip, or the rate is wrong.
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
        """Rate in Hz of the person's audio."""
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

    def __repr__(self) -> str:
        state = "not started" if self._started_at is None else "running"
        return f"<wav.Edge {state} clips={len(self._clips)} {self._rate} Hz>"

    @property
    def output_rate(self) -> int:
        """Rate in Hz of the frames that `play` accepts, and of the recording."""
        return self._rate

    @property
    def quality(self) -> Quality:
        """``estimated``: played audio is derived from the clock."""
        return "estimated"

    @property
    def lead_ms(self) -> int:
        """20: one frame."""
        return FRAME_MS

    @property
    def latency_ms(self) -> float:
        """0, because audio reaches the recording at once."""
        return 0.0

    @property
    def recorded_s(self) -> float:
        """Seconds of the conversation in the file ``out``; 0 until the file is complete."""
        return self._recorded_s

    @property
    def recording_failure(self) -> str | None:
        """Why the recording ended before the conversation; None if it did not."""
        return None if self._recording is None else self._recording.failure

    def interject(self, audio: Source) -> None:
        """Speak a clip now, or after the current one."""
        self._speak(load_audio(audio, self.input_rate))

    async def run(self, agent: AgentInput, ready: Callable[[], None]) -> None:
        """Speak the clips and leave; complete the recording, also when cancelled."""
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

    async def _run_ticks(self, agent: AgentInput, started_at: float) -> None:
        quiet_since = settled_since = None
        tick = 0
        while True:
            tick += 1
            due = started_at + tick * _FRAME
            # After a late tick the next ones follow at once, so the file never drifts from the
            # clock.
            await self._clock.sleep(max(0.0, due - self._clock.now()))
            if tick == 1 and self._wait_for_greeting is None and agent.is_idle:
                self._speak_next_clip()
            if self._speaking:
                quiet_since = settled_since = None
            elif quiet_since is None:
                quiet_since = due
            # Send each frame at the time of its last sample, as a microphone does.
            self._send_frame(agent, self._next_frame(tick), tick)
            if quiet_since is None:
                continue
            if not agent.is_idle:
                settled_since = None
            elif settled_since is None:
                settled_since = due
            settled = settled_since is not None and due - settled_since >= self._settle_s
            given_up = due - quiet_since >= self._wait_s
            if given_up and not settled:
                logger.warning("the agent was still busy after %g s", self._wait_s)
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
        """Return the person's next 20 ms; the length varies by one sample if the rate needs it."""
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

    def _send_frame(self, agent: AgentInput, frame: AudioFrame, tick: int) -> None:
        agent.push_audio(frame)
        if self._recording is not None:
            self._recording.add_person(self._resampler.push(frame.samples))
            if tick % _FRAMES_PER_SECOND == 0:
                # Audio older than a second has been played and can't be cleared any more.
                self._recording.commit(
                    min(self._recording.person_end, (tick // _FRAMES_PER_SECOND - 1) * self._rate)
                )

    def play(self, frame: AudioFrame | None) -> None:
        """Record the agent's next 20 ms, after the previous frame or now."""
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
        """Drop audio that has not been played by now."""
        if self._started_at is not None and self._recording is not None:
            self._recording.clear_agent(self._position())

    def _position(self) -> int:
        assert self._started_at is not None  # noqa: S101  # both callers looked
        return round((self._clock.now() - self._started_at) * self._rate)
