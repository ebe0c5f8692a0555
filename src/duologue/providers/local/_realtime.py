"""`Realtime` of the built-in engine: no key, no network, one set of weights for all sessions."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path

from duologue.clock import Clock
from duologue.errors import SessionClosedError
from duologue.pipeline.connection import Components, PipelineConnection
from duologue.pipeline.interfaces import LLM, STT, TTS, TurnDetector
from duologue.providers.local import _chat_model, engine
from duologue.providers.local._virtual_time_llm import ClockHoldingLLM
from duologue.realtime.capabilities import Capabilities
from duologue.realtime.codec import Connection, SessionSetup
from duologue.realtime.realtime import Realtime as BaseRealtime
from duologue.vad.endpointing import Endpointing
from duologue.vad.vad import VAD

STT_RATE = 16000
TTS_RATE = 24000
VOTE_S = 0.25
"""Silence in seconds after which the end of a turn is decided.

Longer than the default of `Endpointing`, because a pause within a sentence is often shorter; not
longer still, because the person waits for it after every short question.
"""


class Realtime(BaseRealtime):
    """The built-in engine. Any of its parts may be replaced by one of yours.

    Weights are fetched by the first `prepare`. If those of a bigger model are unavailable, ``tiny``
    takes its place, and the session's capabilities name it.

    Args:
        profile: Size of the engine: ``tiny``, ``small`` or ``better``.
        llm: An `LLM`; or ``hf:ORG/REPO/FILE.gguf`` or the path of a GGUF chat model, as in
            `local.LLM`.
        stt: Speech recogniser.
        tts: Speech synthesiser.
        vad: Voice activity detector.
        turn_detection: End-of-turn detector.
        voice: Name of a voice of the built-in synthesiser.
        endpointing: When a turn ends; None uses `Endpointing` with ``vote_s`` 0.25.
        offline: Fetch nothing.
        clock: Source of time.

    Raises:
        ConfigError: the profile or the voice is unknown, or ``llm`` names no GGUF file.
        WeightsError: from `prepare`, if there are no weights at all, or the file that ``llm`` names
            can't be fetched, has changed since its first use, or is no chat model.
        MissingExtraError: from `prepare`, if the extra ``local`` is not installed.
    """

    def __init__(
        self,
        profile: str = engine.DEFAULT_PROFILE,
        *,
        llm: LLM | str | Path | None = None,
        stt: STT | None = None,
        tts: TTS | None = None,
        vad: VAD | None = None,
        turn_detection: TurnDetector | None = None,
        voice: str = "heart",
        endpointing: Endpointing | None = None,
        offline: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._engine_profile = engine.find_profile(profile)
        if isinstance(llm, str | Path):
            llm = _chat_model.LLM(llm, offline=offline)
        tools_reliable = (self._engine_profile if llm is None else llm).tools_reliable
        super().__init__(
            Capabilities(
                provider="local",
                model=self._engine_profile.llm_weights if llm is None else llm.model,
                input_rate=STT_RATE if stt is None else stt.rate,
                output_rate=TTS_RATE if tts is None else tts.rate,
                tools="reliable" if tools_reliable else "experimental",
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
            ),
            in_process=True,
            clock=clock,
        )
        self._llm = llm
        self._stt = stt
        self._tts = tts
        self._vad = vad
        self._turn_detector = turn_detection
        self._voice = voice
        self._offline = offline
        self._endpointing = endpointing or Endpointing(vote_s=VOTE_S)
        self._parts: Components | None = None

    async def prepare(self, setup: SessionSetup) -> None:
        """Load missing parts in threads, and read the instructions into the prompt cache."""
        if self._parts is None:
            self._parts = await self._load()
            llm = self._parts.llm
            self.capabilities = replace(
                self.capabilities,
                model=llm.model,
                tools="reliable" if llm.tools_reliable else "experimental",
            )
        await self._parts.llm.prepare(setup.instructions, setup.tools)

    def open(self, setup: SessionSetup) -> Connection:
        """Return a connection to the engine in this process.

        Raises:
            SessionClosedError: the engine is not prepared.
        """
        if self._parts is None:
            raise SessionClosedError("prepare the engine before opening a session")
        return PipelineConnection(self._parts, setup, self.clock)

    async def _load(self) -> Components:
        load_turn = partial(engine.load_turn_detector, offline=self._offline)
        load_stt = partial(engine.load_stt, offline=self._offline)

        async def own[T](part: T | None, load: partial[T]) -> T:
            return part if part is not None else await asyncio.to_thread(load)

        try:
            async with asyncio.TaskGroup() as tasks:
                vad = tasks.create_task(own(self._vad, partial(engine.load_vad)))
                turn = tasks.create_task(own(self._turn_detector, load_turn))
                stt = tasks.create_task(own(self._stt, load_stt))
                tts = tasks.create_task(own(self._tts, partial(engine.load_tts, self._voice)))
                llm = tasks.create_task(self._load_llm())
        except ExceptionGroup as group:
            # A dependency that one part lacks is missing for most of them: the first error is
            # enough.
            raise group.exceptions[0] from None
        return Components(
            vad=vad.result(),
            turn=turn.result(),
            stt=stt.result(),
            llm=llm.result(),
            tts=tts.result(),
            endpointing=self._endpointing,
        )

    async def _load_llm(self) -> LLM:
        match self._llm:
            case None:
                load = partial(engine.load_llm, self._engine_profile, offline=self._offline)
                self._engine_profile, llm = await asyncio.to_thread(load)
                return ClockHoldingLLM(llm)
            case _chat_model.LLM():
                await self._llm.load()
                return self._llm
            case _:
                return self._llm
