"""`Pipeline`: VAD, turn detection, STT, LLM and TTS as one `Realtime`."""

from __future__ import annotations

from duologue.clock import Clock
from duologue.pipeline.connection import Components, PipelineConnection
from duologue.pipeline.interfaces import LLM, STT, TTS, TurnDetector
from duologue.realtime.capabilities import Capabilities
from duologue.realtime.codec import Connection, SessionSetup
from duologue.realtime.realtime import Realtime
from duologue.vad.endpointing import Endpointing
from duologue.vad.energy import EnergyVAD
from duologue.vad.vad import VAD


class Pipeline(Realtime):
    """Five parts in a row, so that an agent has one flow and not two.

    STT and LLM begin at the first likely end of a turn and are thrown away if the person goes on.
    Without ``turn``, silence alone ends a turn; without ``vad``, loudness alone is voice
    (`EnergyVAD`), which is only right where it is quiet.
    """

    def __init__(
        self,
        *,
        llm: LLM,
        stt: STT,
        tts: TTS,
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
            user_transcripts="partial",
            manual_turns=True,
        )
        super().__init__(profile, clock=clock)
        self._components = Components(
            vad=vad or EnergyVAD(),
            turn=turn,
            stt=stt,
            llm=llm,
            tts=tts,
            endpointing=endpointing or Endpointing(),
        )

    async def prepare(self, setup: SessionSetup) -> None:
        """Let the LLM get ready for these instructions."""
        await self._components.llm.prepare(setup.instructions, setup.tools)

    def open(self, setup: SessionSetup) -> Connection:
        """Start on a session, in this process."""
        return PipelineConnection(self._components, setup, self.clock)
