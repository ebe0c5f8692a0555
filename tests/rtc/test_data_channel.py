"""The data channel: waiting for space, and messages that are too long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

pytest.importorskip("aiortc", reason="the webrtc extra is not installed")

from duologue.audio import AudioFrame
from duologue.rtc.config import MessageTooLongError, PeerConfig
from duologue.rtc.peer import Peer

CONFIG = PeerConfig(loopback=True)


def nothing(frame: AudioFrame) -> None:
    pass


@asynccontextmanager
async def two() -> AsyncIterator[tuple[Peer, Peer, list[str]]]:
    got: list[str] = []
    caller = Peer(CONFIG, on_audio=nothing)
    callee = Peer(CONFIG, on_audio=nothing, on_message=got.append)
    try:
        yield caller, callee, got
    finally:
        await caller.close()
        await callee.close()


async def test_drain_waits_for_the_channel_and_then_for_space() -> None:
    async with two() as (caller, callee, got):
        draining = asyncio.create_task(caller.drain(1000))
        await caller.answer(await callee.accept(await caller.offer()))
        async with asyncio.timeout(5):
            assert await draining
            for index in range(8):
                assert await caller.drain(40_000)
                assert caller.send_message(f"{index}" * 60_000)
            assert await caller.drain(0)
            while len(got) < 8:
                await asyncio.sleep(0.005)
        assert [text[0] for text in got] == list("01234567")
        assert caller.counters["messages_dropped"] == 0


async def test_drain_ends_with_the_channel() -> None:
    async with two() as (caller, callee, _):
        await caller.answer(await callee.accept(await caller.offer()))
        async with asyncio.timeout(5):
            assert await caller.drain(0)
            for _ in range(4):
                caller.send_message("x" * 60_000)
            draining = asyncio.create_task(caller.drain(0))
            await asyncio.sleep(0)
            await caller.close()
            assert not await draining
            assert not await caller.drain(0)


async def test_a_message_longer_than_the_far_side_accepts_is_an_error() -> None:
    async with two() as (caller, callee, got):
        await caller.answer(await callee.accept(await caller.offer()))
        async with asyncio.timeout(5):
            assert await caller.drain(0)
            with pytest.raises(MessageTooLongError, match="262144"):
                caller.send_message("x" * 262_145)
            assert caller.send_message("y")
            while got != ["y"]:
                await asyncio.sleep(0.005)
