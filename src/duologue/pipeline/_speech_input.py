"""The input half of a pipeline: turns input audio into user turns with transcripts.

    audio -> VAD -> LevelGate -> Endpointer -> steps
                                                 |
                                PAUSED: transcribe | VOTE: ask the turn detector
                                                 |
                              TurnHandler.prepare_reply, then turn_ended or discard_reply

Transcribing and voting run side by side in their own tasks, so that a reply can be prepared before
the turn is known to be over. Two turns close to each other are transcribed together, because a
recogniser mishears a short piece that it gets alone; only the new words become the second turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, Protocol
from uuid import uuid4

from duologue._numpy import np
from duologue._user_code import FailureReports, describe, log_failure, run_contained
from duologue.audio import AudioFrame, Framer, Resampler, Samples
from duologue.clock import Clock
from duologue.errors import ErrorKind
from duologue.items import replace_surrogates
from duologue.pipeline._listening_stt import TurnStream
from duologue.pipeline.interfaces import STT, STTStream, TurnDetector
from duologue.realtime.outputs import (
    Output,
    ProviderError,
    SpeechStarted,
    SpeechStopped,
    UserTranscript,
)
from duologue.vad.contained import ContainedVAD
from duologue.vad.endpointing import Endpointer, Endpointing, EndpointingStep
from duologue.vad.level_gate import LevelGate
from duologue.vad.preroll import Preroll
from duologue.vad.vad import VAD
from duologue.vad.words import has_words, words_after

log = logging.getLogger(__name__)

MAX_REJOIN_GAP_S = 1.5
"""Speech that follows the last turn within this time is transcribed together with it."""
MAX_REJOIN_S = 8.0
"""Turns are joined only up to this length, because each transcript is made of all of it."""
MIN_WORD_S = 0.3
"""Shorter speech is hardly a word but a cough or a click."""
CLOSE_TIMEOUT_S = 0.3
"""Time for the recogniser to release a turn at the end of a session."""
REVOTE_S = 0.15
"""Further silence after which the turn detector is asked again."""
MAX_VOTES = 16
"""Votes of a turn that are remembered."""
MAX_VOTE_AUDIO_S = 8.0
"""Most audio of a turn that the turn detector gets: what smart-turn v3 uses."""


@dataclass(frozen=True, slots=True)
class TurnDecision:
    """Why a turn is over.

    Args:
        by: What decided; "" is a service.
        votes: The turn detector's probabilities that it was over, in their order.
    """

    by: Literal["", "vote", "silence", "program"]
    votes: tuple[float, ...] = ()


SERVICE_DECISION = TurnDecision("")


class TurnHandler(Protocol):
    """Replies to user turns."""

    def partial_transcript(self, item_id: str, text: str) -> None:
        """The person is speaking, and has said ``text`` so far in the turn ``item_id``."""

    def prepare_reply(self, text: str) -> None:
        """Prepare a reply to ``text``: the person may have finished."""

    def discard_reply(self) -> None:
        """Discard the prepared reply: the person continues."""

    async def turn_ended(
        self,
        item_id: str,
        text: str,
        speech_end: float,
        *,
        reply: bool = True,
        decision: TurnDecision = SERVICE_DECISION,
    ) -> None:
        """The turn is over.

        Args:
            item_id: The id of the turn.
            text: Its transcript; empty if it has no words.
            speech_end: When the speech ended, in clock seconds.
            reply: Whether to reply to it.
            decision: Who decided that it is over.
        """


@dataclass(slots=True)
class _UserTurn:
    item_id: str
    stream: STTStream
    recent_audio: deque[Samples]
    recent_samples: int = 0
    text: str = ""
    stream_s: float = 0.0
    """Seconds of audio pushed to the stream."""
    prior_text: str = ""
    """What the stream had transcribed before this turn, if it is joined to the last turn."""
    reply: bool = True
    failed_components: set[str] = field(default_factory=set)
    """Components whose failure in this turn was reported."""
    ended: bool = False
    """Whether the model or the program has ended it, so that no vote is needed."""
    votes: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_VOTES))
    """The detector's probabilities that it was over."""
    decision_due: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the turn was ended or the silence was long enough: decide at once."""


class _EmptySTTStream:
    """Replaces the stream that the STT failed to make."""

    def push(self, frame: AudioFrame) -> None:
        """Drop the audio."""

    async def text(self) -> str:
        """Return no transcript."""
        return ""

    async def close(self) -> None:
        """Do nothing: there is nothing to release."""


class SpeechInput:
    """Processes input audio on the event loop; transcribes and votes in its own tasks.

    An error of a component is reported once in each turn, and only its result is missing.
    """

    def __init__(
        self,
        *,
        vad: VAD,
        stt: STT,
        turn: TurnDetector | None,
        endpointing: Endpointing,
        turn_handler: TurnHandler,
        emit: Callable[[Output], None],
        tasks: asyncio.TaskGroup,
        clock: Clock,
    ) -> None:
        failures = FailureReports(clock.now, self._emit_error)
        self._vad = ContainedVAD(vad, failures).stream()
        self._vad_rate = vad.rate
        self._stt = stt
        self._turn_detector = turn
        self._endpointing = endpointing
        self._turn_handler = turn_handler
        self._emit = emit
        self._tasks = tasks
        self._clock = clock
        self._framer = Framer(vad.rate, vad.frame_samples * 1000 // vad.rate)
        self._resampler = Resampler(stt.rate, vad.rate)
        self._endpointer = Endpointer(endpointing)
        self._gate = LevelGate()
        self._preroll = Preroll(endpointing.preroll_s + MAX_REJOIN_GAP_S)
        self._turn: _UserTurn | None = None
        self._last_turn: _UserTurn | None = None
        self._pause_task: asyncio.Task[None] | None = None
        self._partial_task: asyncio.Task[None] | None = None
        self._partial_after = 0.0
        self._last_turn_end = 0.0

    def push(self, frame: AudioFrame) -> None:
        """Process input audio at the STT's rate."""
        if self._turn is not None:
            self._append_audio(self._turn, frame)
        else:
            self._preroll.push(frame)
        now = self._clock.now()
        chunks = self._framer.push(self._resampler.push(frame.samples))
        held = len(self._framer) / self._vad_rate
        seconds = self._framer.size / self._vad_rate
        for index, chunk in enumerate(chunks):
            at = now - held - (len(chunks) - 1 - index) * seconds
            activity = self._vad.push(chunk)
            if self._gate.is_quiet(chunk, speech=activity > self._endpointing.threshold):
                activity = 0.0
            for step in self._endpointer.push(activity, seconds, at):
                self._handle_step(step, held + (len(chunks) - 1 - index) * seconds)

    def end_turn(self, *, reply: bool = True) -> None:
        """End the current turn, if there is one.

        Args:
            reply: Whether to reply to it.
        """
        if self._turn is not None:
            self._turn.reply = reply
            self._turn.ended = True
            self._turn.decision_due.set()
            self._start_pause(self._turn)

    def clear(self) -> None:
        """Drop the current turn."""
        turn, self._turn = self._turn, None
        self._endpointer.end()
        self._cancel_tasks()
        self._turn_handler.discard_reply()
        if turn is not None:
            self._release(turn)

    async def close(self) -> None:
        """Release the recogniser, or leave it alone after `CLOSE_TIMEOUT_S`."""
        turns = [turn for turn in (self._turn, self._last_turn) if turn is not None]
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                for turn in turns:
                    await self._close_stream(turn)

    def _handle_step(self, step: EndpointingStep, ago: float) -> None:
        """Process a step that was due ``ago`` seconds before the end of the audio received."""
        match step:
            case EndpointingStep.STARTED:
                turn = self._turn = self._begin_turn(ago)
                self._emit(SpeechStarted(turn.item_id, self._endpointer.speech_start))
            case EndpointingStep.PARTIAL:
                self._start_partial()
            case EndpointingStep.PAUSED:
                if self._turn is not None:
                    self._start_pause(self._turn)
            case EndpointingStep.RESUMED:
                self._cancel_tasks()
                self._turn_handler.discard_reply()
                if self._turn is not None:
                    self._turn.decision_due.clear()
                    self._emit(SpeechStarted(self._turn.item_id))
            case EndpointingStep.VOTE:
                if self._turn is not None:
                    self._emit(SpeechStopped(self._turn.item_id, self._endpointer.speech_end))
            case EndpointingStep.TIMEOUT:
                if self._turn is not None:
                    self._turn.decision_due.set()

    def _begin_turn(self, ago: float) -> _UserTurn:
        last, self._last_turn = self._last_turn, None
        kept = self._endpointing.preroll_s + ago
        turn: _UserTurn | None = None
        if last is not None:
            gap = self._endpointer.speech_start - self._last_turn_end
            if gap < MAX_REJOIN_GAP_S and last.stream_s < MAX_REJOIN_S:
                prior = " ".join(text for text in (last.prior_text, last.text) if text)
                seconds = last.stream_s
                turn = _UserTurn(
                    uuid4().hex, last.stream, deque(), stream_s=seconds, prior_text=prior
                )
                # Include the silence between them: a recogniser stumbles over a missing piece.
                kept += MAX_REJOIN_GAP_S
            else:
                self._release(last)
        if turn is None:
            turn = _UserTurn(uuid4().hex, _EmptySTTStream(), deque())
            try:
                turn.stream = self._stt.stream()
            except BaseException as error:  # noqa: BLE001 - reported
                self._report("transcription", error, turn)
        for frame in self._preroll.take(kept):
            self._append_audio(turn, frame)
        return turn

    def _release(self, turn: _UserTurn) -> None:
        self._tasks.create_task(self._close_stream(turn), name="stt close")

    async def _close_stream(self, turn: _UserTurn) -> None:
        try:
            await run_contained(turn.stream.close())
        except Exception as error:  # noqa: BLE001 - nothing of the turn depends on it
            log_failure(log, "closing a transcription", error)

    def _report(self, component: str, error: BaseException, turn: _UserTurn) -> None:
        """Report the failure of a component, once in a turn; re-raise Ctrl-C."""
        if isinstance(error, KeyboardInterrupt):
            raise error
        if component not in turn.failed_components:
            turn.failed_components.add(component)
            log_failure(log, component, error)
            self._emit_error(component, describe(error), str(getattr(error, "code", "")))

    def _emit_error(self, component: str, message: str, code: str = "") -> None:
        self._emit(ProviderError(ErrorKind.RETRY, code, f"{component}: {message}"))

    def _append_audio(self, turn: _UserTurn, frame: AudioFrame) -> None:
        try:
            turn.stream.push(frame)
        except BaseException as error:  # noqa: BLE001 - reported
            self._report("transcription", error, turn)
        turn.stream_s += frame.duration
        turn.recent_audio.append(frame.samples)
        turn.recent_samples += len(frame)
        while turn.recent_samples - len(turn.recent_audio[0]) > MAX_VOTE_AUDIO_S * frame.rate:
            turn.recent_samples -= len(turn.recent_audio.popleft())

    def _start_pause(self, turn: _UserTurn) -> None:
        if self._pause_task is None or self._pause_task.done():
            if self._partial_task is not None:
                # The whole turn is transcribed now, and must not wait for a partial transcript.
                self._partial_task.cancel()
            self._pause_task = self._tasks.create_task(self._run_pause(turn), name="end of turn")

    def _start_partial(self) -> None:
        """Transcribe the turn so far, but spend at most a quarter of the time on it."""
        now = self._clock.now()
        busy = self._partial_task is not None and not self._partial_task.done()
        if self._turn is None or busy or now < self._partial_after:
            return
        self._partial_task = self._tasks.create_task(self._run_partial(self._turn), name="partial")

    def _cancel_tasks(self) -> None:
        for task in (self._pause_task, self._partial_task):
            if task is not None:
                task.cancel()
        self._pause_task = self._partial_task = None

    async def _run_partial(self, turn: _UserTurn) -> None:
        started = self._clock.now()
        if isinstance(turn.stream, TurnStream):
            self._put_transcript(turn, turn.stream.partial_text())
        else:
            await self._transcribe(turn)
        self._turn_handler.partial_transcript(turn.item_id, turn.text)
        now = self._clock.now()
        self._partial_after = now + 3 * (now - started)

    async def _run_pause(self, turn: _UserTurn) -> None:
        """Transcribe and vote side by side, prepare a reply, and end the turn once it is over."""
        vote_at = self._clock.now() + self._endpointing.vote_s - self._endpointing.speculate_s
        transcribing = self._tasks.create_task(self._transcribe(turn), name="transcript")
        voting = self._tasks.create_task(self._vote(turn, transcribing), name="vote")
        try:
            await transcribing
            if turn.prior_text and not has_words(turn.text):
                await self._transcribe_alone(turn)
            has_text = has_words(turn.text)
            if has_text:
                self._turn_handler.prepare_reply(turn.text)
            while not turn.ended:
                # The vote is requested early, but counts only after enough silence.
                probability = await self._await_vote(voting, turn) if has_text else 1.0
                await self._clock.sleep(max(0.0, vote_at - self._clock.now()))
                if has_text and probability is not None:
                    turn.votes.append(probability)
                if turn.ended or self._is_over(turn, probability):
                    break
                vote_at += REVOTE_S
                await self._wait_for_revote(turn, vote_at)
                if self._endpointer.silence_s >= self._endpointer.pause_limit_s - 1e-9:
                    break
                voting.cancel()
                voting = self._tasks.create_task(self._vote(turn, transcribing), name="vote")
        finally:
            transcribing.cancel()
            voting.cancel()
        if self._turn is not turn:
            return
        self._turn = None
        self._endpointer.end()
        self._pause_task = None
        self._last_turn, self._last_turn_end = turn, self._endpointer.speech_end
        text = turn.text if has_text else ""
        await self._turn_handler.turn_ended(
            turn.item_id,
            text,
            self._endpointer.speech_end,
            reply=turn.reply,
            decision=self._decision(turn),
        )

    async def _await_vote(
        self, voting: asyncio.Task[float | None], turn: _UserTurn
    ) -> float | None:
        """Return the detector's vote, or None if it does not come before the timeout.

        A vote that was requested after the timeout, because the recogniser was slow, still gets
        ``vote_s``.
        """
        if turn.decision_due.is_set():
            await asyncio.wait({voting}, timeout=self._endpointing.vote_s)
        else:
            due = self._tasks.create_task(turn.decision_due.wait(), name="timeout")
            try:
                await asyncio.wait({voting, due}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                due.cancel()
        return voting.result() if voting.done() else None

    def _decision(self, turn: _UserTurn) -> TurnDecision:
        """Return why a turn that is over has ended."""
        votes = tuple(round(vote, 2) for vote in turn.votes)
        if turn.ended:
            return TurnDecision("program", votes)
        voted = bool(turn.votes) and turn.votes[-1] >= self._endpointing.probability
        return TurnDecision("vote" if voted else "silence", votes)

    def _is_over(self, turn: _UserTurn, probability: float | None) -> bool:
        """Return whether the turn is over, by the detector's vote or by its silence."""
        if probability is not None and probability >= self._endpointing.probability:
            return True
        limit = self._endpointing.pause_limit_s(probability)
        if self._endpointer.silence_s >= limit - 1e-9:
            return True
        self._endpointer.set_pause_limit(limit)
        turn.decision_due.clear()
        return False

    async def _wait_for_revote(self, turn: _UserTurn, when: float) -> None:
        """Wait until the detector is asked again, with more silence to judge."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, when - self._clock.now())):
                await turn.decision_due.wait()

    async def _vote(self, turn: _UserTurn, transcribing: asyncio.Task[None]) -> float | None:
        """Return the probability that the turn is over; None without a detector."""
        if self._turn_detector is None:
            return None
        audio = np.concatenate(turn.recent_audio)
        if self._turn_detector.rate != self._stt.rate:
            resampler = Resampler(self._stt.rate, self._turn_detector.rate)
            audio = np.concatenate((resampler.push(audio), resampler.flush()))

        async def text() -> str:
            await asyncio.wait({transcribing})
            return turn.text

        try:
            return float(await run_contained(self._turn_detector.end_of_turn(audio, text)))
        except Exception as error:  # noqa: BLE001 - reported
            self._report("turn detection", error, turn)
            return None

    async def _transcribe_alone(self, turn: _UserTurn) -> None:
        """Transcribe a turn alone if it adds no words to the turn before it.

        A recogniser may leave out repeated words, or change the beginning so that nothing seems to
        follow it. A turn too short for a word is not transcribed.
        """
        if (
            not MIN_WORD_S
            <= self._endpointer.speech_end - self._endpointer.speech_start
            < MAX_VOTE_AUDIO_S - MAX_REJOIN_GAP_S
        ):
            return
        try:
            stream = self._stt.stream()
        except BaseException as error:  # noqa: BLE001 - reported
            self._report("transcription", error, turn)
            return
        self._release(_UserTurn(turn.item_id, turn.stream, deque()))
        recent = list(turn.recent_audio)
        turn.stream, turn.stream_s, turn.prior_text = stream, 0.0, ""
        turn.recent_audio.clear()
        turn.recent_samples = 0
        for samples in recent:
            self._append_audio(turn, AudioFrame(samples, self._stt.rate))
        await self._transcribe(turn)

    async def _transcribe(self, turn: _UserTurn) -> None:
        try:
            self._put_transcript(turn, await run_contained(turn.stream.text()))
        except Exception as error:  # noqa: BLE001 - reported
            self._report("transcription", error, turn)

    def _put_transcript(self, turn: _UserTurn, transcript: str) -> None:
        text = words_after(replace_surrogates(transcript), turn.prior_text)
        if self._turn is turn and text != turn.text:
            turn.text = text
            self._emit(UserTranscript(turn.item_id, text, final=False))
