"""The cost of images on their way to Gemini: CPU, and their age when they are sent.

``python -m benchmarks.video [SECONDS]``. A camera of 1280 by 720 pixels has 30 images a second, one
of which is sent. The echo provider records when each arrived, by the number in it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.agent_client import FedEdge, feed, sparse
from benchmarks.camera import HEIGHT, WIDTH, scene, stamp
from benchmarks.clients import NAMES, realtime, talker
from benchmarks.figures import Figure, give, median, percentile
from benchmarks.provider import Provider
from duologue.video import VideoFrame

CAMERA_FPS = 30
IMAGES = 45
"""Images of the scene, after which it repeats."""
SESSIONS = 8
"""Sessions at the same time: one alone costs too little to be measured well."""
APART_S = 0.125
"""Seconds between the starts of their video."""


@dataclass
class Seen:
    """One run: CPU of a session in % of a core, and what happened to the camera's images."""

    cpu: float
    shown: int
    ages: list[float]
    """Age in ms of the images that arrived."""
    frames: float
    """Audio frames per second that came back to a session."""


class Camera:
    """Gives all edges the next image, 30 times a second, and records when it took each."""

    def __init__(self, edges: list[FedEdge], images: list[NDArray[np.uint8]]) -> None:
        self._edges = edges
        self._pictures = images
        self.taken_at: dict[int, float] = {}
        """When an image was taken, by its number."""

    async def run(self) -> None:
        """Take images until cancelled."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        index = 0
        while True:
            await asyncio.sleep(max(0.0, began + index / CAMERA_FPS - loop.time()))
            index += 1
            now = loop.time()
            self.taken_at[index] = time.perf_counter()
            for number, edge in enumerate(self._edges):
                if edge.person is not None and now >= began + number * APART_S:
                    edge.person.push_video(partial(self._picture, index, now))

    def _picture(self, number: int, now: float) -> VideoFrame:
        pixels = self._pictures[number % len(self._pictures)]
        if len(self._pictures) > 1:
            stamp(pixels, number)
        return VideoFrame(pixels, now)


async def talk(provider: Provider, edge: FedEdge, options: dict[str, object]) -> None:
    """Run one session that may see, until its edge hangs up."""
    llm = realtime(provider.name, provider.url, video=True, **options)
    async with talker(edge, llm).join() as agent:
        await agent.finish()


async def watch(
    provider: Provider, images: list[NDArray[np.uint8]], seconds: float, **options: object
) -> Seen:
    """Talk and look for ``seconds``; without images the camera is off."""
    edges = [FedEdge() for _ in range(SESSIONS)]
    camera = Camera(edges, images)
    audio = sparse(10.0, provider.rate)
    async with asyncio.TaskGroup() as tasks:
        began = asyncio.get_running_loop().time() + 0.5
        for edge in edges:
            tasks.create_task(talk(provider, edge, options))
            feed(edge, audio, began)
        await asyncio.sleep(1)
        looking = tasks.create_task(camera.run()) if images else None
        await asyncio.sleep(3)
        provider.report()
        cpu, wall = time.process_time(), time.perf_counter()
        frames = sum(edge.frames for edge in edges)
        await asyncio.sleep(seconds)
        passed = time.perf_counter() - wall
        share = (time.process_time() - cpu) / passed / SESSIONS * 100
        rate = (sum(edge.frames for edge in edges) - frames) / passed / SESSIONS
        seen = provider.report().images
        for edge in edges:
            edge.hung_up.set()
        if looking is not None:
            looking.cancel()
    ages = [(at - camera.taken_at[number]) * 1000 for number, at in seen]
    return Seen(share, len(seen), ages, rate)


async def measure(provider: Provider, seconds: float) -> list[Figure]:
    """Measure audio alone, with a moving scene, and with one that stays the same."""
    moving, still = scene(IMAGES, moving=True), scene(1, moving=False)
    alone = await watch(provider, [], seconds)
    plain = await watch(provider, moving, seconds)
    skipping = await watch(provider, moving, seconds, skip_unchanged=True)
    quiet = await watch(provider, still, seconds, skip_unchanged=True)
    again = await watch(provider, [], seconds)
    base = (alone.cpu + again.cpu) / 2
    camera = f"a camera of {WIDTH} by {HEIGHT} at {CAMERA_FPS} images/s"
    beside = (
        f"beyond the {base:.2f} % of the same one of {SESSIONS} sessions without a camera "
        f"({alone.cpu:.2f} and {again.cpu:.2f})"
    )
    figures = []
    for named, seen in (("", plain), (", skip_unchanged", skipping)):
        share = seen.cpu - base
        rate = seen.shown / seconds / SESSIONS
        figures.append(
            Figure(
                f"{NAMES[provider.name]}: CPU of moving video at 1 image/s{named}",
                "<= 1 % of a core",
                f"{share:.2f} %",
                share <= 1 and 0.9 <= rate <= 1.1 and seen.frames > 49.5,
                f"{beside}; {camera}, its {CAMERA_FPS} timers a second included; "
                f"{rate:.2f} images a second sent, scaled to 768 by 432",
            )
        )
    share = quiet.cpu - base
    figures.append(
        Figure(
            f"{NAMES[provider.name]}: CPU of a image that stays the same, skip_unchanged",
            "<= 1 % of a core",
            f"{share:.2f} %",
            share <= 1 and 1 <= quiet.shown / SESSIONS <= seconds / 10 + 1,
            f"{quiet.shown / SESSIONS:.1f} images sent in {seconds:.0f} s: one in ten seconds",
        )
    )
    ages = [*plain.ages, *skipping.ages]
    worst = max(ages, default=float("inf"))
    figures.append(
        Figure(
            f"{NAMES[provider.name]}: age of a moving image when it comes to the provider, worst",
            "<= 1000 ms, one interval",
            f"{worst:.0f} ms (median {median(ages):.0f}, p90 {percentile(ages, 90):.0f})",
            worst <= 1000,
            f"{len(ages)} images, each known by the number in it; {camera}",
        )
    )
    return figures


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    with Provider("gemini") as provider:
        give(asyncio.run(measure(provider, seconds)))


if __name__ == "__main__":
    main()
