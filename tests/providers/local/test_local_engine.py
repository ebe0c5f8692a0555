from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from duologue.audio import AudioFrame
from duologue.errors import ConfigError
from duologue.items import UserItem
from duologue.pipeline.interfaces import TextDelta
from duologue.realtime.codec import SessionSetup
from duologue.weights import Store, WeightsError

pytest.importorskip("xllamacpp", reason="needs duologue[local]")

from duologue.providers.local import Realtime, engine

MAX_DELAY = 0.005
"""Seconds that the event loop is blocked while the engine works."""


async def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no profile 'huge'; there are: tiny, small"):
        await engine.load("huge")


def test_only_better_is_trusted_with_tools() -> None:
    trusted = {name for name, profile in engine.PROFILES.items() if profile.tools_reliable}
    assert trusted == {"better"}


@pytest.mark.weights
def test_an_unavailable_big_model_falls_back_to_tiny(
    weights: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ensure = Store.ensure

    def refuse(store: Store, name: str, *, offline: bool = False, progress: bool = True) -> Path:
        if name == "qwen2.5-coder-1.5b":
            raise WeightsError("can't get qwen2.5-coder-1.5b: no network")
        return ensure(store, name, offline=offline, progress=progress)

    monkeypatch.setattr(Store, "ensure", refuse)
    with caplog.at_level(logging.WARNING):
        profile, llm = engine.load_llm(engine.find_profile("better"))
    assert profile.name == "tiny"
    assert not llm.tools_reliable
    [record] = caplog.records
    assert record.getMessage() == (
        "profile better falls back to tiny: can't get qwen2.5-coder-1.5b: no network"
    )


@pytest.mark.weights
async def test_the_engine_is_loaded_once(weights: Store) -> None:
    one, other = await asyncio.gather(engine.load("tiny"), engine.load("tiny"))
    assert one.stt is other.stt
    assert one.turn_detector is other.turn_detector
    assert one.tts is other.tts
    assert one.profile.name == "tiny"


@pytest.mark.weights
async def test_the_event_loop_is_not_blocked(weights: Store) -> None:
    if os.getloadavg()[0] > (os.cpu_count() or 1) + 1:
        pytest.skip("other programs keep this machine too busy to measure delays")
    parts = await engine.load("tiny")
    await parts.llm.prepare("You are Ava.", [])
    delays: list[float] = []
    audio = np.random.default_rng(0).integers(-3000, 3000, 48000).astype(np.int16)

    async def watch() -> None:
        while True:
            due = time.perf_counter() + 0.002
            await asyncio.sleep(0.002)
            delays.append(time.perf_counter() - due)

    async def words() -> str:
        return "hello"

    async def listen() -> None:
        voice = parts.vad.stream()
        stream = parts.stt.stream()
        for at in range(0, len(audio) - 255, 256):
            voice.push(audio[at : at + 256])
        stream.push(AudioFrame(audio, 16000))
        await stream.text()
        await parts.turn_detector.end_of_turn(audio, words)

    async def talk() -> None:
        history = [UserItem("1", "Tell me about dogs.")]
        async with aclosing(parts.llm.generate("You are Ava.", history, [])) as stream:
            words = "".join([out.text async for out in stream if isinstance(out, TextDelta)])
        async for _ in parts.tts.synthesize(words):
            pass

    async def both() -> None:
        await listen()
        await talk()

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch())
        await both()
        # A busy machine may take the core away in one try; the engine would block in all of them.
        for _ in range(3):
            delays.clear()
            await both()
            assert len(delays) > 50
            worst = float(np.quantile(delays, 0.99))
            if worst < MAX_DELAY:
                break
        watching.cancel()
    assert worst < MAX_DELAY


async def test_a_missing_dependency_is_raised_by_itself_and_not_in_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUOLOGUE_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match="models fetch"):
        await Realtime("tiny", offline=True).prepare(SessionSetup("Be kind."))
