"""The hearing half of a pipeline: from sound to turns with their words."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol
from uuid import uuid4

import numpy as np

from duologue.audio import AudioFrame, Framer, Resampler, Samples
from duologue.clock import Clock
from duologue.items import sendable
from duologue.pipeline.contained_vad import ContainedVAD
from duologue.pipeline.level_gate import LevelGate
from duologue.pipeline.parts import STT, VAD, STTStream, TurnDetector
from duologue.pipeline.preroll import Preroll
from duologue.pipeline.turn_taking import Endpointing, Step, TurnTaking
from duologue.pipeline.words import has_words, words_after
from duologue.realtime.errors import ErrorKind
from duologue.realtime.outputs import (
    Output,
    ProviderError,
    SpeechStarted,
    SpeechStopped,
    UserTranscript,
)
from duologue.user_code import FailureReports, contained, describe, log_failure

log = logging.getLogger(__name__)

REJOIN_S = 1.5
"""Speech that follows the last turn's within so many seconds is transcribed together with it: a
recogniser mishears a short piece that it hears alone."""
REJOIN_LIMIT_S = 8.0
"""But no longer than this together: every transcript is of the whole, and costs by its length."""
WORD_S = 0.3
"""Seconds; shorter speech is hardly a word, but a cough or a click."""
CLOSE_S = 0.3
"""What a recogniser may take to let go of a turn at the end of a session, in seconds."""
VOTE_S = 8.0
"""Sound of a turn that the turn detector is given, in seconds: what smart-turn v3 looks at."""


class Answerer(Protocol):
    """Who answers what was heard."""

    def prepare(self, text: str) -> None:
        """The person has perhaps finished, having said ``text``: begin on an answer."""

    def discard(self) -> None:
        """They had not: throw the answer away."""

    async def turn_ended(
        self, item_id: str, text: str, speech_end: float, *, reply: bool = True
    ) -> None:
        """They have; ``text`` is empty where there were no words, ``reply`` if it is answered."""


@dataclass(slots=True)
class _Turn:
    item_id: str
    stream: STTStream
    recent: deque[Samples]
    recent_samples: int = 0
    text: str = ""
    stream_s: float = 0.0
    """Sound that the stream has been given, in seconds."""
    before: str = ""
    """What the stream had transcribed when this turn began: the turn before, which it goes on."""
    reply: bool = True
    failed: set[str] = field(default_factory=set)
    """Parts whose failure in this turn was reported."""
    over: bool = False
    """Whether the model or the program has ended it, so that no vote is needed."""
    silent: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the turn was ended, or was silent for long enough: decide at once."""


class _NoStream:
    """Replaces the transcription of a turn that the STT failed to begin."""

    def push(self, frame: AudioFrame) -> None:
        """Drop the audio."""

    async def text(self) -> str:
        """Return no words."""
        return ""

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""


class Hearing:
    """Takes input audio on the event loop; transcribes and votes in tasks of its own.

    An error of a part is reported once in each turn, and only its result is missing.
    """

    def __init__(
        self,
        *,
        vad: VAD,
        stt: STT,
        turn: TurnDetector | None,
        endpointing: Endpointing,
        answerer: Answerer,
        emit: Callable[[Output], None],
        tasks: asyncio.TaskGroup,
        clock: Clock,
    ) -> None:
        failures = FailureReports(self._tell, clock.now)
        self._vad = ContainedVAD(vad, failures).stream()
        self._vad_rate = vad.rate
        self._stt = stt
        self._detector = turn
        self._config = endpointing
        self._answerer = answerer
        self._emit = emit
        self._tasks = tasks
        self._clock = clock
        self._framer = Framer(vad.rate, vad.frame_samples * 1000 // vad.rate)
        self._resampler = Resampler(stt.rate, vad.rate)
        self._taking = TurnTaking(endpointing)
        self._gate = LevelGate()
        self._preroll = Preroll(endpointing.preroll_s + REJOIN_S)
        self._turn: _Turn | None = None
        self._last: _Turn | None = None
        self._pause: asyncio.Task[None] | None = None
        self._partial: asyncio.Task[None] | None = None
        self._partial_after = 0.0
        self._last_end = 0.0

    def push(self, frame: AudioFrame) -> None:
        """Take the next sound, at the STT's rate."""
        if self._turn is not None:
            self._keep(self._turn, frame)
        else:
            self._preroll.push(frame)
        now = self._clock.now()
        chunks = self._framer.push(self._resampler.push(frame.samples))
        held = len(self._framer) / self._vad_rate
        seconds = self._framer.size / self._vad_rate
        for index, chunk in enumerate(chunks):
            at = now - held - (len(chunks) - 1 - index) * seconds
            activity = self._vad.push(chunk)
            if self._gate.is_quiet(chunk, speech=activity > self._config.threshold):
                activity = 0.0
            for step in self._taking.push(activity, seconds, at):
                self._take(step, held + (len(chunks) - 1 - index) * seconds)

    def end_turn(self, *, reply: bool = True) -> None:
        """The turn is over because somebody says so; harmless while nobody speaks.

        Without ``reply`` it is heard and not answered.
        """
        if self._turn is not None:
            self._turn.reply = reply
            self._turn.over = True
            self._turn.silent.set()
            self._start_pause(self._turn)

    def clear(self) -> None:
        """Forget the turn that is under way."""
        turn, self._turn = self._turn, None
        self._taking.end()
        self._cancel()
        self._answerer.discard()
        if turn is not None:
            self._let_go(turn)

    async def close(self) -> None:
        """Let go of the recogniser; what it has not let go of by then is left to it."""
        turns = [turn for turn in (self._turn, self._last) if turn is not None]
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                for turn in turns:
                    await self._close(turn)

    def _take(self, step: Step, ago: float) -> None:
        """Take a step that was due ``ago`` seconds before the end of the sound that has come."""
        taking = self._taking
        match step:
            case Step.STARTED:
                turn = self._turn = self._begin(ago)
                self._emit(SpeechStarted(turn.item_id, taking.speech_start))
            case Step.PARTIAL:
                self._start_partial()
            case Step.PAUSED:
                if self._turn is not None:
                    self._start_pause(self._turn)
            case Step.RESUMED:
                self._cancel()
                self._answerer.discard()
                if self._turn is not None:
                    self._turn.silent.clear()
                    self._emit(SpeechStarted(self._turn.item_id))
            case Step.VOTE:
                if self._turn is not None:
                    self._emit(SpeechStopped(self._turn.item_id, taking.speech_end))
            case Step.TIMEOUT:
                if self._turn is not None:
                    self._turn.silent.set()

    def _begin(self, ago: float) -> _Turn:
        last, self._last = self._last, None
        kept = self._config.preroll_s + ago
        turn: _Turn | None = None
        if last is not None:
            gap = self._taking.speech_start - self._last_end
            if gap < REJOIN_S and last.stream_s < REJOIN_LIMIT_S:
                before = " ".join(text for text in (last.before, last.text) if text)
                seconds = last.stream_s
                turn = _Turn(uuid4().hex, last.stream, deque(), stream_s=seconds, before=before)
                # With the silence between them: a recogniser stumbles over a piece that is missing.
                kept += REJOIN_S
            else:
                self._let_go(last)
        if turn is None:
            turn = _Turn(uuid4().hex, _NoStream(), deque())
            try:
                turn.stream = self._stt.stream()
            except BaseException as error:  # noqa: BLE001 - reported
                self._report("transcription", error, turn)
        for frame in self._preroll.take(kept):
            self._keep(turn, frame)
        return turn

    def _let_go(self, turn: _Turn) -> None:
        self._tasks.create_task(self._close(turn), name="stt close")

    async def _close(self, turn: _Turn) -> None:
        try:
            await contained(turn.stream.close())
        except Exception as error:  # noqa: BLE001 - nothing of the turn depends on it
            log_failure(log, "closing a transcription", error)

    def _report(self, part: str, error: BaseException, turn: _Turn) -> None:
        """Report the failure of a part, once in a turn; Ctrl-C is raised again."""
        if isinstance(error, KeyboardInterrupt):
            raise error
        if part not in turn.failed:
            turn.failed.add(part)
            log_failure(log, part, error)
            self._tell(part, describe(error), str(getattr(error, "code", "")))

    def _tell(self, part: str, message: str, code: str = "") -> None:
        self._emit(ProviderError(ErrorKind.RETRY, code, f"{part}: {message}"))

    def _keep(self, turn: _Turn, frame: AudioFrame) -> None:
        try:
            turn.stream.push(frame)
        except BaseException as error:  # noqa: BLE001 - reported
            self._report("transcription", error, turn)
        turn.stream_s += frame.duration
        turn.recent.append(frame.samples)
        turn.recent_samples += len(frame)
        while turn.recent_samples - len(turn.recent[0]) > VOTE_S * frame.rate:
            turn.recent_samples -= len(turn.recent.popleft())

    def _start_pause(self, turn: _Turn) -> None:
        if self._pause is None or self._pause.done():
            if self._partial is not None:
                # The whole turn is transcribed now, and does not wait for a part of it.
                self._partial.cancel()
            self._pause = self._tasks.create_task(self._run_pause(turn), name="end of turn")

    def _start_partial(self) -> None:
        """Transcribe what was said so far, but spend no more than a quarter of the time on it."""
        now = self._clock.now()
        busy = self._partial is not None and not self._partial.done()
        if self._turn is None or busy or now < self._partial_after:
            return
        self._partial = self._tasks.create_task(self._run_partial(self._turn), name="partial")

    def _cancel(self) -> None:
        for task in (self._pause, self._partial):
            if task is not None:
                task.cancel()
        self._pause = self._partial = None

    async def _run_partial(self, turn: _Turn) -> None:
        began = self._clock.now()
        await self._transcribe(turn)
        now = self._clock.now()
        self._partial_after = now + 3 * (now - began)

    async def _run_pause(self, turn: _Turn) -> None:
        """Transcribe and vote side by side, begin on an answer, end the turn once it is over."""
        vote_at = self._clock.now() + self._config.vote_s - self._config.speculate_s
        transcribing = self._tasks.create_task(self._transcribe(turn), name="transcript")
        voting = self._tasks.create_task(self._vote(turn, transcribing), name="vote")
        try:
            await transcribing
            if turn.before and not has_words(turn.text):
                await self._hear_alone(turn)
            words = has_words(turn.text)
            if words:
                self._answerer.prepare(turn.text)
            while not turn.over:
                # The vote is asked for early, and counts when there was silence for long enough.
                probability = await self._voted(voting, turn) if words else 1.0
                await self._clock.sleep(max(0.0, vote_at - self._clock.now()))
                if turn.over or self._is_over(turn, probability):
                    break
                vote_at += self._config.vote_s
                await self._again(turn, vote_at)
                if self._taking.silence >= self._taking.longest_pause - 1e-9:
                    break
                voting.cancel()
                voting = self._tasks.create_task(self._vote(turn, transcribing), name="vote")
        finally:
            transcribing.cancel()
            voting.cancel()
        if self._turn is not turn:
            return
        self._turn = None
        self._taking.end()
        self._pause = None
        self._last, self._last_end = turn, self._taking.speech_end
        text = turn.text if words else ""
        await self._answerer.turn_ended(
            turn.item_id, text, self._taking.speech_end, reply=turn.reply
        )

    async def _voted(self, voting: asyncio.Task[float | None], turn: _Turn) -> float | None:
        """Return the detector's vote; None if it does not come before the time-out.

        A vote that was requested after the time-out, because the recogniser was slow, still has
        ``vote_s``.
        """
        if turn.silent.is_set():
            await asyncio.wait({voting}, timeout=self._config.vote_s)
        else:
            silent = self._tasks.create_task(turn.silent.wait(), name="time-out")
            try:
                await asyncio.wait({voting, silent}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                silent.cancel()
        return voting.result() if voting.done() else None

    def _is_over(self, turn: _Turn, probability: float | None) -> bool:
        """Return whether the turn is over by the detector's vote, or by its silence."""
        if probability is not None and probability >= self._config.probability:
            return True
        longest = self._config.longest_pause(probability)
        if self._taking.silence >= longest - 1e-9:
            return True
        self._taking.wait(longest)
        turn.silent.clear()
        return False

    async def _again(self, turn: _Turn, when: float) -> None:
        """Wait until the detector is asked again, which hears more silence then."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, when - self._clock.now())):
                await turn.silent.wait()

    async def _vote(self, turn: _Turn, transcribing: asyncio.Task[None]) -> float | None:
        """Return the probability that the turn is over; None without a detector."""
        if self._detector is None:
            return None
        audio = np.concatenate(turn.recent)
        if self._detector.rate != self._stt.rate:
            resampler = Resampler(self._stt.rate, self._detector.rate)
            audio = np.concatenate((resampler.push(audio), resampler.flush()))

        async def text() -> str:
            await asyncio.wait({transcribing})
            return turn.text

        try:
            return float(await contained(self._detector.end_of_turn(audio, text)))
        except Exception as error:  # noqa: BLE001 - reported
            self._report("turn detection", error, turn)
            return None

    async def _hear_alone(self, turn: _Turn) -> None:
        """Transcribe a turn alone, if it has no new words together with the turn before.

        A recogniser may leave out repeated words, or change the beginning so that nothing seems to
        follow it. A turn that is too short for a word is not transcribed.
        """
        if not WORD_S <= self._taking.speech_end - self._taking.speech_start < VOTE_S - REJOIN_S:
            return
        try:
            stream = self._stt.stream()
        except BaseException as error:  # noqa: BLE001 - reported
            self._report("transcription", error, turn)
            return
        self._let_go(_Turn(turn.item_id, turn.stream, deque()))
        recent = list(turn.recent)
        turn.stream, turn.stream_s, turn.before = stream, 0.0, ""
        turn.recent.clear()
        turn.recent_samples = 0
        for samples in recent:
            self._keep(turn, AudioFrame(samples, self._stt.rate))
        await self._transcribe(turn)

    async def _transcribe(self, turn: _Turn) -> None:
        try:
            transcript = sendable(await contained(turn.stream.text()))
            text = words_after(transcript, turn.before)
        except Exception as error:  # noqa: BLE001 - reported
            self._report("transcription", error, turn)
            return
        if self._turn is turn and text != turn.text:
            turn.text = text
            self._emit(UserTranscript(turn.item_id, text, final=False))
