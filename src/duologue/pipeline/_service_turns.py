"""The input half of a pipeline whose recogniser finds the turns.

    audio ──> STTConnection ──> RecognitionEvent ──> TurnHandler

    TurnStarted   SpeechStarted                      the person speaks
    TurnUpdated   UserTranscript
    TurnMayEnd    SpeechStopped, prepare_reply       a reply is made, in case that is all
    TurnResumed   SpeechStarted, discard_reply
    TurnEnded     turn_ended                         the reply is spoken

A turn that ends without words was no speech. Barge-in does not wait for these events: the session's
own VAD hears the person long before the service tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

from duologue._user_code import describe, log_failure, run_contained
from duologue.audio import AudioFrame
from duologue.clock import Clock
from duologue.errors import ErrorKind, SessionError
from duologue.items import replace_surrogates
from duologue.pipeline._speech_input import TurnHandler, log
from duologue.pipeline.interfaces import (
    AudioLost,
    RecognitionEvent,
    STTConnection,
    TurnEnded,
    TurnMayEnd,
    TurnResumed,
    TurnStarted,
    TurnUpdated,
)
from duologue.realtime.outputs import (
    Output,
    ProviderError,
    SpeechStarted,
    SpeechStopped,
    UserTranscript,
)
from duologue.vad.words import has_words

END_TIMEOUT_S = 2.0
"""Seconds in which the service has to confirm that a turn is over that the program has ended."""


@dataclass(slots=True)
class _ServiceTurn:
    item_id: str
    text: str = ""
    may_be_over: bool = False
    reply: bool = True


class ServiceTurnInput:
    """Passes audio to a recogniser, and its turns to a `TurnHandler`.

    Args:
        stt: The recogniser of this conversation.
        turn_handler: Replies to the turns.
        emit: Called with each output.
        tasks: Runs the recogniser.
        clock: Tells the time.
    """

    def __init__(
        self,
        stt: STTConnection,
        *,
        turn_handler: TurnHandler,
        emit: Callable[[Output], None],
        tasks: asyncio.TaskGroup,
        clock: Clock,
    ) -> None:
        self._stt = stt
        self._turn_handler = turn_handler
        self._emit = emit
        self._tasks = tasks
        self._clock = clock
        self._turn: _ServiceTurn | None = None
        self._pushed_s = 0.0
        self._cleared = False
        """Whether the turn that is open was dropped."""
        tasks.create_task(self._run(), name="recogniser")

    def push(self, frame: AudioFrame) -> None:
        """Pass on input audio at the STT's rate."""
        self._pushed_s += frame.duration
        try:
            self._stt.push(frame)
        except BaseException as error:  # noqa: BLE001 - reported
            self._report(error)

    def end_turn(self, *, reply: bool = True) -> None:
        """End the current turn, if there is one.

        Args:
            reply: Whether to reply to it.
        """
        turn = self._turn
        if turn is None:
            return
        turn.reply = reply
        self._stt.end_turn()
        self._clock.call_at(
            self._clock.now() + END_TIMEOUT_S, lambda: self._end(turn, turn.text, None)
        )

    def clear(self) -> None:
        """Drop the current turn."""
        self._turn_handler.discard_reply()
        if self._turn is not None:
            self._turn, self._cleared = None, True
            self._stt.end_turn()

    async def close(self) -> None:
        """Do nothing: the tasks close the recogniser."""

    def receive(self, event: RecognitionEvent) -> None:
        """Process an event of the recogniser."""
        match event:
            case TurnStarted(at=at):
                self._start(at)
            case TurnUpdated(text=text) if self._turn is not None:
                self._update(self._turn, text)
            case TurnMayEnd(text=text) if self._turn is not None:
                self._update(self._turn, text)
                self._turn.may_be_over = True
                self._emit(SpeechStopped(self._turn.item_id, self._clock.now()))
                if has_words(self._turn.text):
                    self._turn_handler.prepare_reply(self._turn.text)
            case TurnResumed() if self._turn is not None:
                self._resume(self._turn)
            case TurnEnded(text=text, at=at):
                if self._turn is not None:
                    self._end(self._turn, text, at)
                self._cleared = False
            case AudioLost(seconds=seconds):
                message = f"{seconds:.1f} s of what the person said were not transcribed"
                self._report(SessionError(message, code="audio_lost"))
            case _:
                pass  # Of a turn that was cleared.

    async def _run(self) -> None:
        try:
            await run_contained(self._stt.run(self.receive))
        except Exception as error:  # noqa: BLE001 - reported
            self._report(error)

    def _start(self, at: float | None) -> None:
        if self._turn is not None or self._cleared:
            return
        self._turn = _ServiceTurn(uuid4().hex)
        self._emit(SpeechStarted(self._turn.item_id, self._clock_time(at)))

    def _update(self, turn: _ServiceTurn, text: str) -> None:
        text = replace_surrogates(text).strip()
        if text != turn.text:
            turn.text = text
            self._emit(UserTranscript(turn.item_id, text, final=False))
            self._turn_handler.partial_transcript(turn.item_id, text)

    def _resume(self, turn: _ServiceTurn) -> None:
        if turn.may_be_over:
            turn.may_be_over = False
            self._turn_handler.discard_reply()
            self._emit(SpeechStarted(turn.item_id))

    def _end(self, turn: _ServiceTurn, text: str, at: float | None) -> None:
        if self._turn is not turn:
            return  # It has ended.
        self._turn = None
        turn.text = replace_surrogates(text).strip()
        speech_end = self._clock_time(at)
        if not turn.may_be_over:
            self._emit(SpeechStopped(turn.item_id, speech_end))
        ended = self._turn_handler.turn_ended(
            turn.item_id,
            turn.text if has_words(turn.text) else "",
            self._clock.now() if speech_end is None else speech_end,
            reply=turn.reply,
        )
        self._tasks.create_task(ended, name="turn")

    def _clock_time(self, at: float | None) -> float | None:
        """Return when a position in the audio was, in clock seconds."""
        return None if at is None else self._clock.now() - max(0.0, self._pushed_s - at)

    def _report(self, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt):
            raise error
        log_failure(log, "transcription", error)
        code = str(getattr(error, "code", ""))
        self._emit(ProviderError(ErrorKind.RETRY, code, f"transcription: {describe(error)}"))
