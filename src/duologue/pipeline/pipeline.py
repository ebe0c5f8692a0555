"""`Pipeline`: VAD, turn detection, STT, LLM and TTS as one `Realtime`."""

from __future__ import annotations

from duologue.clock import Clock
from duologue.pipeline.connection import Components, PipelineConnection
from duologue.pipeline.interfaces import (
    LLM,
    STT,
    TTS,
    StreamingSTT,
    StreamingTTS,
    TurnDetector,
)
from duologue.realtime.capabilities import Capabilities
from duologue.realtime.codec import Connection, SessionSetup
from duologue.realtime.realtime import Realtime
from duologue.vad.endpointing import Endpointing
from duologue.vad.energy import EnergyVAD
from duologue.vad.vad import VAD


class Pipeline(Realtime):
    """A `Realtime` made of five components, so that an agent has one flow and not two.

    STT and LLM start at the first likely end of a turn; their work is discarded if the person
    continues.

    Args:
        llm: The language model.
        stt: Transcribes the person. A `StreamingSTT` may also find the turns.
        tts: Speaks the replies.
        turn: Decides whether a turn is over; without it, silence alone ends a turn. Not used if the
            STT finds the turns.
        vad: Detects voice; by default by loudness alone (`EnergyVAD`), which is only right in quiet
            places.
        endpointing: When turns begin and end.
        provider: The name of the provider in `Capabilities`.
        clock: The clock to measure time with.
    """

    def __init__(
        self,
        *,
        llm: LLM,
        stt: STT | StreamingSTT,
        tts: TTS | StreamingTTS,
        turn: TurnDetector | None = None,
        vad: VAD | None = None,
        endpointing: Endpointing | None = None,
        provider: str = "pipeline",
        clock: Clock | None = None,
    ) -> None:
        profile = Capabilities(
            provider=provider,
            model=llm.model,
            input_rate=stt.rate,
            output_rate=tts.rate,
            tools="reliable" if llm.tools_reliable else "experimental",
            say="exact",
            truncation="native",
            confirms_cancel=True,
            speech_detection="server",
            user_transcripts="partial",
            manual_turns=True,
            turn_reply="automatic",
            accepts_history=True,
            mutable_instructions=True,
            mutable_tools=True,
        )
        finds_turns = isinstance(stt, StreamingSTT) and stt.turns == "service"
        # What the recogniser tells comes late: the person interrupts by their voice.
        super().__init__(profile, in_process=True, clock=clock, vad=vad if finds_turns else None)
        self._components = Components(
            vad=vad or EnergyVAD(),
            turn=turn,
            stt=stt,
            llm=llm,
            tts=tts,
            endpointing=endpointing or Endpointing(),
        )

    async def prepare(self, setup: SessionSetup) -> None:
        """Let the LLM prepare for these instructions."""
        await self._components.llm.prepare(setup.instructions, setup.tools)

    def open(self, setup: SessionSetup) -> Connection:
        """Return a connection that runs in this process."""
        return PipelineConnection(self._components, setup, self.clock)
