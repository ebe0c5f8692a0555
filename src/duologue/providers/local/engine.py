"""The parts of the built-in engine, loaded once per process and shared by all sessions."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from duologue.errors import ConfigError
from duologue.pipeline.interfaces import LLM, STT, TTS, TurnDetector
from duologue.providers.local._llama import Llama
from duologue.providers.local._llm import MAX_TOKENS, LocalLLM
from duologue.providers.local._stt import Moonshine
from duologue.providers.local._tts import Hibari
from duologue.providers.local._turn import SmartTurn
from duologue.vad.earshot import EarshotVAD
from duologue.vad.vad import VAD
from duologue.weights import GgufHeader, ModelFiles, Store, WeightsError, check_chat_model

logger = logging.getLogger(__name__)

type ProfileName = Literal["tiny", "small", "better"]


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """One size of the engine.

    Attributes:
        name: Its name.
        llm_weights: Weights of its language model.
        tools_reliable: Whether its tool calls can be trusted.
        repeat_penalty: Above 1 keeps the smallest model from looping.
    """

    name: ProfileName
    llm_weights: str
    tools_reliable: bool = False
    repeat_penalty: float = 1.0


PROFILES: dict[str, EngineProfile] = {
    "tiny": EngineProfile("tiny", "smollm2-135m", repeat_penalty=1.1),
    "small": EngineProfile("small", "qwen2.5-coder-0.5b"),
    "better": EngineProfile("better", "qwen2.5-coder-1.5b", tools_reliable=True),
}
DEFAULT_PROFILE: ProfileName = "small"

SWITCH_INTERVAL = 0.001
"""Seconds that a thread may hold the interpreter while another waits for it."""

SPEECH_WEIGHTS = (
    "moonshine-tiny-en-encoder",
    "moonshine-tiny-en-decoder",
    "moonshine-tiny-en-tokenizer",
    "smart-turn-v3.2",
)


@dataclass(frozen=True, slots=True)
class Engine:
    """A loaded engine; its parts serve any number of sessions.

    ``profile`` is what was loaded: ``tiny`` if the weights of a bigger one are unavailable.
    """

    profile: EngineProfile
    vad: VAD
    turn_detector: TurnDetector
    stt: STT
    llm: LLM
    tts: TTS


class _LoadOnce[K, V]:
    """Creates a value at its first use and keeps it; a second caller waits for the first."""

    def __init__(self, make: Callable[[K], V]) -> None:
        self._make = make
        self._made: dict[K, V] = {}
        self._lock = threading.Lock()

    def __call__(self, key: K) -> V:
        with self._lock:
            if key not in self._made:
                self._made[key] = self._make(key)
            return self._made[key]


def profile_weights(profile: str) -> list[str]:
    """Return the names of all weights that a profile needs."""
    return [*SPEECH_WEIGHTS, PROFILES[profile].llm_weights]


def find_profile(name: str) -> EngineProfile:
    """Return the profile called ``name``.

    Raises:
        ConfigError: there is no such profile.
    """
    if name in PROFILES:
        return PROFILES[name]
    raise ConfigError(f"there is no profile {name!r}; there are: {', '.join(PROFILES)}")


def share_interpreter() -> None:
    """Make threads hand over the interpreter after 1 ms instead of 5 ms.

    The voice turns text into phonemes in plain Python, and the event loop must not wait for it.
    """
    sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL))


async def load(
    name: str = DEFAULT_PROFILE, *, voice: str = "heart", offline: bool = False
) -> Engine:
    """Load the engine in threads, and keep it; weights that are missing are fetched.

    Load it before sessions begin: while the language model is read (0.5 to 2 s), its runtime holds
    the interpreter, which stops the event loop.

    Args:
        name: The profile: ``tiny``, ``small`` or ``better``.
        voice: Name of the voice.
        offline: Fetch nothing.

    Raises:
        ConfigError: the profile or the voice is unknown.
        WeightsError: weights are unavailable.
        MissingExtraError: the extra ``local`` is not installed.
    """
    profile = find_profile(name)
    vad, turn, stt, tts, (loaded, llm) = await asyncio.gather(
        asyncio.to_thread(load_vad),
        asyncio.to_thread(load_turn_detector, offline=offline),
        asyncio.to_thread(load_stt, offline=offline),
        asyncio.to_thread(load_tts, voice),
        asyncio.to_thread(load_llm, profile, offline=offline),
    )
    return Engine(loaded, vad, turn, stt, llm, tts)


def load_vad() -> VAD:
    """Load the voice activity detector; blocks."""
    return EarshotVAD()


def load_turn_detector(*, offline: bool = False) -> TurnDetector:
    """Load the end-of-turn detector; blocks.

    Raises:
        WeightsError: its weights are unavailable.
    """
    return _turn_detectors(Store().ensure("smart-turn-v3.2", offline=offline))


def load_stt(*, offline: bool = False) -> STT:
    """Load the speech recogniser; blocks.

    Raises:
        WeightsError: its weights are unavailable.
    """
    store = Store()
    encoder, decoder, tokenizer = (
        store.ensure(f"moonshine-tiny-en-{part}", offline=offline)
        for part in ("encoder", "decoder", "tokenizer")
    )
    return _recognisers((encoder, decoder, tokenizer))


def load_tts(voice: str = "heart") -> TTS:
    """Load the voice; blocks.

    Raises:
        ConfigError: the voice is unknown.
    """
    share_interpreter()
    return _voices(voice)


def load_llm(profile: EngineProfile, *, offline: bool = False) -> tuple[EngineProfile, LLM]:
    """Load the language model of ``profile``, or of ``tiny`` if its weights are unavailable;
    blocks.

    Returns:
        The profile that was loaded, and its language model.

    Raises:
        WeightsError: not even the weights of ``tiny`` are available.
    """
    store = Store()
    try:
        path = store.ensure(profile.llm_weights, offline=offline)
    except WeightsError as error:
        fallback = PROFILES["tiny"]
        if profile is fallback:
            raise
        path = store.ensure(fallback.llm_weights, offline=offline)
        logger.warning("profile %s falls back to tiny: %s", profile.name, error)
        profile = fallback
    llm = LocalLLM(
        _llamas(path),
        path.stem,
        tools_reliable=profile.tools_reliable,
        repeat_penalty=profile.repeat_penalty,
    )
    return profile, llm


def load_gguf(
    source: str | Path,
    *,
    offline: bool = False,
    tools_reliable: bool = False,
    temperature: float = 0.0,
    max_tokens: int = MAX_TOKENS,
    stop: threading.Event | None = None,
) -> LLM:
    """Load any GGUF chat model as the language model; blocks.

    Args:
        source: ``hf:ORG/REPO/FILE.gguf``, or a path.
        offline: Fetch nothing.
        tools_reliable: Whether its tool calls can be trusted.
        temperature: Above 0 varies the replies.
        max_tokens: Tokens of one turn at most.
        stop: End a download when this is set.

    Raises:
        ConfigError: the name is malformed, or there is no such file.
        WeightsError: the hub does not provide the file, it is not the one that was used first, or
            it is not a chat model.
        SessionError: the runtime can't load it.
    """
    path = ModelFiles().ensure(source, offline=offline, stop=stop)
    template = str(_headers((path, path.stat().st_mtime_ns)).values["tokenizer.chat_template"])
    return LocalLLM(
        _chat_models((path, template)),
        path.stem,
        tools_reliable=tools_reliable,
        max_tokens=max_tokens,
        temperature=temperature,
        own_template=True,
    )


_turn_detectors: _LoadOnce[Path, TurnDetector] = _LoadOnce(SmartTurn)
_recognisers: _LoadOnce[tuple[Path, Path, Path], STT] = _LoadOnce(lambda files: Moonshine(*files))
_voices: _LoadOnce[str, TTS] = _LoadOnce(Hibari)
_llamas: _LoadOnce[Path, Llama] = _LoadOnce(Llama)
_headers: _LoadOnce[tuple[Path, int], GgufHeader] = _LoadOnce(lambda key: check_chat_model(key[0]))
_chat_models: _LoadOnce[tuple[Path, str], Llama] = _LoadOnce(
    lambda key: Llama(key[0], chat_template=key[1])
)
