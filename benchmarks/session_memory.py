"""Memory of one session with OpenAI over a WebSocket, beside clients written by hand.

``python -m benchmarks.session_memory [--passes N]``. In real time: a pass takes 90 s.

- *silence*: a minute of a microphone's faint noise, and the echo of it.
- *speech*: a minute of real people, with the service's turns, transcripts and replies; in the pause
  behind a sentence, and in the middle of a sentence of 11 s.
- *untold*: the same from a service that transcribes nothing.

A figure is the resident memory of a process with many sessions less that of one with few, both at
the same age. All processes of a pass run at the same time.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Literal

import numpy as np

from benchmarks.agent_client import FedEdge, feed
from benchmarks.baseline_client import BareClient, Client, Pace
from benchmarks.clients import realtime, talker
from benchmarks.corpus import recorded
from benchmarks.figures import Figure, give, median, rss_mb
from benchmarks.lean_client import LeanClient, is_installed
from benchmarks.provider import TURNS, UNTOLD, Provider
from benchmarks.wire_formats import DIALECTS, RATE
from duologue.audio import AudioFrame, Resampler

type Scene = Literal["raw", "lean", "silence", "speech", "untold"]

FEW = 5
MANY = 30
PAUSE_S = 2.0
SENTENCES = ("austen-0880", "austen-0930", "jfk")
PATHS = {"silence": "", "speech": TURNS, "untold": UNTOLD}
BY_HAND_S = 10.0
MINUTE_S = 60.0


def speech() -> tuple[AudioFrame, list[float]]:
    """Return sentences with pauses, and when each ends in s."""
    parts, ends, at = [], [], 0
    for name in SENTENCES:
        clip = recorded(name)
        resampler = Resampler(clip.rate, RATE)
        samples = np.concatenate((resampler.push(clip.samples), resampler.flush()))
        parts.append(samples)
        ends.append((at + len(samples)) / RATE)
        gap = round(PAUSE_S * RATE)
        gap += -(len(samples) + gap) % (RATE // 50)
        parts.append(np.zeros(gap, np.int16))
        at += len(samples) + gap
    return AudioFrame(np.concatenate(parts), RATE), ends


def noise(seconds: float) -> AudioFrame:
    """Return what a good microphone hears in a quiet room."""
    dice = np.random.default_rng(1)
    return AudioFrame(dice.integers(-20, 21, int(seconds * RATE)).astype(np.int16), RATE)


async def settled_mb() -> float:
    """Return the resident memory without garbage."""
    gc.collect()
    await asyncio.sleep(0)
    return rss_mb()


async def by_hand(scene: Scene, sessions: int, port: int) -> dict[str, float]:
    """Measure clients written by hand, which keep nothing: so ten seconds are enough."""
    made: Callable[..., Client] = LeanClient if scene == "lean" else BareClient
    dialects = [DIALECTS["openai"]() for _ in range(sessions)]
    clients = [
        made(d, f"ws://127.0.0.1:{port}{d.path}", Pace(range(1, 801), RATE)) for d in dialects
    ]
    loop = asyncio.get_running_loop()
    for client in clients:
        client.pace.began = loop.time() + 1
    tasks = [asyncio.create_task(client.run(1_000_000)) for client in clients]
    await asyncio.sleep(BY_HAND_S)
    assert all(client.pace.frames > 50 for client in clients), "no audio came back"
    assert not any(task.done() for task in tasks)
    return {scene: await settled_mb()}


async def ours(scene: Scene, sessions: int, port: int) -> dict[str, float]:
    """Measure sessions of the library."""
    loop = asyncio.get_running_loop()
    turns = scene != "silence"
    audio, ends = speech() if turns else (noise(10.0), [])
    edges = [FedEdge(lead_ms=20) for _ in range(sessions)]
    url = f"http://127.0.0.1:{port}{PATHS[scene]}"

    async def talk(edge: FedEdge) -> None:
        async with talker(edge, realtime("openai", url)).join() as agent:
            await agent.finish()

    tasks = [asyncio.create_task(talk(edge)) for edge in edges]
    began = loop.time() + 2
    for number, edge in enumerate(edges):
        feed(edge, audio, began + number * 0.02 / sessions)
    if not turns:
        await asyncio.sleep(began + MINUTE_S - loop.time())
        found = {scene: await settled_mb()}
    else:
        end = ends[-1] + 2 * audio.duration
        assert end > MINUTE_S
        await asyncio.sleep(began + end - 3 - loop.time())
        found = {f"{scene}, mid-sentence": await settled_mb()}
        await asyncio.sleep(began + end + PAUSE_S - 0.2 - loop.time())
        found[scene] = await settled_mb()
    assert all(edge.frames > 100 for edge in edges), "no audio came back"
    assert not any(task.done() for task in tasks)
    return found


def child(scene: Scene, sessions: int, port: int) -> None:
    """Measure in this process, and print what was found."""
    measured = by_hand if scene in {"raw", "lean"} else ours
    with asyncio.Runner() as runner:
        print(json.dumps(runner.run(measured(scene, sessions, port))), flush=True)
        os._exit(0)  # hanging up in order would take long


def one_pass(provider: Provider, scenes: list[Scene]) -> dict[str, float]:
    """Return the memory of one session in MB, by scene."""
    command = [sys.executable, "-m", "benchmarks.session_memory", "--child"]
    running = {
        (scene, sessions): subprocess.Popen(
            [*command, scene, str(sessions), str(provider.port)], stdout=subprocess.PIPE, text=True
        )
        for scene in scenes
        for sessions in (FEW, MANY)
    }
    outputs = {key: process.communicate(timeout=150)[0] for key, process in running.items()}
    found: dict[str, float] = {}
    for scene in scenes:
        few, many = (json.loads(outputs[scene, sessions]) for sessions in (FEW, MANY))
        found |= {name: (many[name] - few[name]) / (MANY - FEW) for name in many}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--scenes", default="silence,speech,untold", help="which of ours")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        scene, sessions, port = options.child
        child(scene, int(sessions), int(port))
    by_hand_scenes: list[Scene] = ["raw", "lean"] if is_installed() else ["raw"]
    passes = []
    with Provider("openai", pinned=False) as provider:
        for _ in range(options.passes):
            found = one_pass(provider, by_hand_scenes)
            found |= one_pass(provider, options.scenes.split(","))
            sys.stderr.write(f"MB a session: { {k: round(v, 3) for k, v in found.items()} }\n")
            passes.append(found)
    mb = {name: median([found[name] for found in passes]) for name in passes[0]}
    hand = f"raw {mb['raw']:.3f} MB, "
    hand += f"lean {mb['lean']:.3f} MB" if "lean" in mb else "lean not measured: no picows"
    figures = []
    for name, target in (("silence", 0.08), ("speech", 0.15)):
        if name not in mb:
            continue
        note = hand
        if name == "speech":
            rest = {k: v for k, v in mb.items() if k.startswith(("speech,", "untold"))}
            note += "".join(
                f"; {'without transcripts' if k.startswith('untold') else 'with them'}"
                f"{', in the middle of a sentence' if 'mid' in k else ''} {v:.3f} MB"
                for k, v in rest.items()
            )
        figures.append(
            Figure(
                f"OpenAI, WebSocket: memory of one session after a minute of {name}",
                f"<= {target} MB",
                f"{mb[name]:.3f} MB",
                mb[name] <= target,
                note,
            )
        )
    give(figures)


if __name__ == "__main__":
    main()
