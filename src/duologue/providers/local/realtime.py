"""`Realtime` of the built-in engine: no key, no network, one set of weights for all sessions."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path

from duologue.clock import Clock
from duologue.pipeline.connection import Parts, PipelineConnection
from duologue.pipeline.parts import LLM, STT, TTS, VAD, TurnDetector
from duologue.pipeline.turn_taking import Endpointing
from duologue.providers.local import engine
from duologue.providers.local.held import HeldLLM
from duologue.realtime.codec import Connection, SessionSetup
from duologue.realtime.errors import SessionClosedError
from duologue.realtime.profile import Profile
from duologue.realtime.session import Realtime as BaseRealtime

STT_RATE = 16000
TTS_RATE = 24000


class Realtime(BaseRealtime):
    """The built-in engine, in the size ``profile``: ``tiny``, ``small`` or ``better``.

    Any part may be one of yours: ``llm`` (an `LLM`, or the path of a GGUF file), ``stt``, ``tts``,
    ``vad``, ``turn_detection``. ``voice`` is the name of a voice of the synthesiser. Weights are
    fetched at the first `prepare` unless ``offline``; where a big model can't be had, ``tiny``
    takes its place and the session's profile says so.

    Raises `ConfigError` for an unknown profile or voice, and from `prepare` a `WeightsError` when
    there are no weights at all, or `MissingExtraError` without the extra ``local``.
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
        self._size = engine.profile_of(profile)
        super().__init__(
            Profile(
                provider="local",
                model=self._size.weight,
                input_rate=STT_RATE if stt is None else stt.rate,
                output_rate=TTS_RATE if tts is None else tts.rate,
                tools="reliable" if self._size.tools_reliable else "experimental",
                user_transcripts="partial",
                manual_turns=True,
            ),
            clock=clock,
        )
        self._llm = llm
        self._stt = stt
        self._tts = tts
        self._vad = vad
        self._turn = turn_detection
        self._voice = voice
        self._offline = offline
        self._endpointing = endpointing or Endpointing()
        self._parts: Parts | None = None

    async def prepare(self, setup: SessionSetup) -> None:
        """Load what is missing, in threads, and read the instructions into the prompt cache."""
        if self._parts is None:
            self._parts = await self._load()
            llm = self._parts.llm
            self.profile = replace(
                self.profile,
                model=llm.model,
                tools="reliable" if llm.tools_reliable else "experimental",
            )
        await self._parts.llm.prepare(setup.instructions, setup.tools)

    def open(self, setup: SessionSetup) -> Connection:
        """Start on a session, in this process."""
        if self._parts is None:
            raise SessionClosedError("prepare the engine before opening a session")
        return PipelineConnection(self._parts, setup, self.clock)

    async def _load(self) -> Parts:
        load_turn = partial(engine.load_turn, offline=self._offline)
        load_stt = partial(engine.load_stt, offline=self._offline)

        async def own[T](part: T | None, load: partial[T]) -> T:
            return part if part is not None else await asyncio.to_thread(load)

        try:
            async with asyncio.TaskGroup() as tasks:
                vad = tasks.create_task(own(self._vad, partial(engine.load_vad)))
                turn = tasks.create_task(own(self._turn, load_turn))
                stt = tasks.create_task(own(self._stt, load_stt))
                tts = tasks.create_task(own(self._tts, partial(engine.load_tts, self._voice)))
                llm = tasks.create_task(self._load_llm())
        except ExceptionGroup as group:
            # What is missing for one of them is missing for most: the first says what to do.
            raise group.exceptions[0] from None
        return Parts(
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
                load = partial(engine.load_llm, self._size, offline=self._offline)
                self._size, llm = await asyncio.to_thread(load)
                return HeldLLM(llm)
            case str() | Path():
                return HeldLLM(await asyncio.to_thread(engine.load_gguf, Path(self._llm)))
            case _:
                return self._llm
