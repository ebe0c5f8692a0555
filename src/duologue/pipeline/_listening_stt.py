"""A `StreamingSTT` that finds no turns, as the `STT` of a pipeline that does.

The recogniser hears all audio of the conversation, so a turn's stream takes none. It only knows
where its turn began, and puts together what was recognised from there on. `ListeningSTT.end_turn`
must be called when a turn is over; two turns that the pipeline joins afterwards share one stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from duologue._bounded_dict import BoundedDict
from duologue._user_code import describe, log_failure, run_contained
from duologue.audio import AudioFrame
from duologue.clock import Clock
from duologue.errors import ErrorKind
from duologue.pipeline._recognition_log import is_loud
from duologue.pipeline.interfaces import (
    AudioLost,
    RecognitionEvent,
    STTConnection,
    STTStream,
    TurnUpdated,
)
from duologue.realtime.outputs import Output, ProviderError

log = logging.getLogger(__name__)

MAX_TURNS = 64
"""Turns whose transcripts are remembered."""
FINAL_TIMEOUT_S = 0.4
"""Seconds to wait for a final transcript; then the newest partial one is used."""
OUTAGE_TIMEOUT_S = 5.0
"""The same while the recogniser is catching up, because its connection was lost."""


class ListeningSTT:
    """Implements `STT` by the recogniser of one conversation, at ``rate`` Hz."""

    def __init__(self, stt: STTConnection, rate: int, clock: Clock) -> None:
        self.rate = rate
        self._stt = stt
        self._clock = clock
        self._turn = 0
        self._texts: BoundedDict[int, str] = BoundedDict(MAX_TURNS)
        self._settled = asyncio.Event()
        self._unsettled = False
        """Whether something was recognised that is not final."""
        self._loud_frames = 0
        self._asked_frames = 0
        """Loud frames when a final transcript was last asked for."""
        self._final_frames = 0
        """Loud frames of which there is a final transcript, or that no turn waits for any more."""
        self._ended = False
        """Whether the recogniser has failed for good."""
        self.lost_s = 0.0

    async def run(self, emit: Callable[[Output], None]) -> None:
        """Run the recogniser; ``emit`` gets its errors."""
        try:
            await run_contained(self._stt.run(self.receive))
        except Exception as error:  # noqa: BLE001 - reported
            log_failure(log, "transcription", error)
            code = str(getattr(error, "code", ""))
            emit(ProviderError(ErrorKind.RETRY, code, f"transcription: {describe(error)}"))
        finally:
            self._ended = True
            self._settled.set()

    def push(self, frame: AudioFrame) -> None:
        """Add audio of the conversation."""
        self._loud_frames += is_loud(frame.samples)
        self._stt.push(frame)

    def stream(self) -> STTStream:
        """Return the stream of the turn that begins."""
        return TurnStream(self, self._turn)

    def end_turn(self) -> None:
        """End the turn."""
        self._stt.end_turn()
        self._turn += 1
        self._final_frames = self._loud_frames
        self._unsettled = False
        self._settled.set()

    def receive(self, event: RecognitionEvent) -> None:
        """Take an event of the recogniser."""
        match event:
            case TurnUpdated(turn=turn, text=text, final=final):
                self._texts[turn] = text
                if turn == self._turn:
                    self._unsettled = not final
                    if final:
                        self._final_frames = max(self._final_frames, self._asked_frames)
                        self._settled.set()
            case AudioLost(seconds=seconds):
                self.lost_s += seconds
            case _:
                pass  # The pipeline finds the turns.

    def text_since(self, turn: int) -> str:
        """Return what was recognised from the beginning of a turn on."""
        texts = [self._texts.get(number, "") for number in range(turn, self._turn + 1)]
        return " ".join(text for text in texts if text)

    async def settle(self) -> None:
        """Wait until all that was recognised is final, but not long."""
        self._settled.clear()
        self._asked_frames = self._loud_frames
        self._stt.settle()
        until = self._clock.now() + OUTAGE_TIMEOUT_S
        while self._unsettled or self._loud_frames > self._final_frames or self._is_late:
            late = self._is_late
            if await self._is_settled_within(FINAL_TIMEOUT_S):
                return
            if not (late or self._is_late) or self._clock.now() >= until:
                return

    @property
    def _is_late(self) -> bool:
        return self._stt.catching_up and not self._ended

    async def _is_settled_within(self, seconds: float) -> bool:
        over = asyncio.Event()
        timer = self._clock.call_at(self._clock.now() + seconds, over.set)
        waits = [asyncio.ensure_future(event.wait()) for event in (self._settled, over)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            for wait in waits:
                wait.cancel()
        return self._settled.is_set()


class TurnStream:
    """The transcription of one turn, which ``turn`` begins."""

    def __init__(self, stt: ListeningSTT, turn: int) -> None:
        self._stt = stt
        self._turn = turn

    def push(self, frame: AudioFrame) -> None:
        """Do nothing: the recogniser has heard it."""

    def partial_text(self) -> str:
        """Return the newest transcript."""
        return self._stt.text_since(self._turn)

    async def text(self) -> str:
        """Return the transcript, final if that does not take long."""
        await self._stt.settle()
        return self.partial_text()

    async def close(self) -> None:
        """Do nothing: the recogniser goes on."""
