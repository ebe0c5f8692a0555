"""Time from the end of speech to the first audio of the reply, in headless Chromium.

The microphone is fake. Both times are taken inside the page, with one audio clock: what the
microphone provides and what the loudspeaker gets. The questions are those of the wav edge.

The server is that of ``duologue serve``, and writes down when loud audio came from the page and
left for it. Page and server run on one machine, so their clocks can be compared, and each step of a
turn has a length (`Turn.steps`). The page's audio clock is converted by the smallest difference
ever seen between the two clocks.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from playwright.async_api import async_playwright

from benchmarks.corpus import QUESTIONS, synthesise
from benchmarks.engine import INSTRUCTIONS
from benchmarks.figures import Figure, give, median, percentile
from duologue._running import run_in_loop
from duologue.agent.agent import Agent
from duologue.agent.processors import Processor
from duologue.audio import AudioFrame, Resampler
from duologue.edges.webrtc import CallEdge
from duologue.events import TurnMetricsEvent
from duologue.hosting import serve as serve_calls
from duologue.providers.local import Realtime
from duologue.realtime.codec import SessionSetup
from duologue.server.config import ServerConfig

EVERY_S = 7.0
QUESTIONS_ASKED = 12
LOUD = 0.004
"""Part of full scale from which audio counts as heard, in the page and in the server."""
GAP_S = 0.1
"""Shortest silence between two stretches of audio."""
FLAGS = (
    "--no-sandbox",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--allow-loopback-in-peer-connection",
)
TAP = """
(() => {
  const clock = new AudioContext({latencyHint: "interactive"});
  const seen = window.seen = {person: [], agent: [], offset: Infinity, stats: []};
  const code = `class Level extends AudioWorkletProcessor {
    begin = null; end = 0; count = 0;
    process([input]) {
      const x = input[0];
      let m = 0;
      if (x) for (const s of x) m = Math.max(m, Math.abs(s));
      if (m > LOUD) { this.begin ??= currentTime; this.end = currentTime; }
      const over = this.begin !== null && currentTime - this.end > GAP;
      // Messages cost the page time: tell it of whole stretches, and the time now and then.
      if (over || ++this.count % 100 == 0) {
        this.port.postMessage([currentTime, over ? [this.begin, this.end] : null]);
        if (over) this.begin = null;
      }
      return true;
    } }
    registerProcessor("level", Level);`;
  const ready = clock.audioWorklet.addModule(
    URL.createObjectURL(new Blob([code], {type: "text/javascript"})));
  const listen = async (stream, into) => {
    await ready;
    await clock.resume();
    const node = new AudioWorkletNode(clock, "level");
    node.port.onmessage = ({data: [at, stretch]}) => {
      const now = (performance.timeOrigin + performance.now()) / 1000;
      seen.offset = Math.min(seen.offset, now - at);
      if (stretch) into.push(stretch);
    };
    clock.createMediaStreamSource(stream).connect(node);
  };
  const get = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async wanted => {
    const stream = await get({...wanted, audio: wanted.audio && {
      echoCancellation: false, noiseSuppression: false, autoGainControl: false}});
    if (stream.getAudioTracks().length) listen(stream, seen.person);
    return stream;
  };
  const Peer = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Peer {
    constructor(...args) {
      super(...args);
      this.addEventListener("track", event => {
        if (event.track.kind === "audio") listen(new MediaStream([event.track]), seen.agent);
      });
      setInterval(async () => {
        const all = [...(await this.getStats()).values()];
        seen.stats = all.filter(s => ["inbound-rtp", "media-playout"].includes(s.type));
      }, 2000);
    }
  };
})();
""".replace("LOUD", str(LOUD)).replace("GAP", str(GAP_S))


class Probe(Processor):
    """Writes down when loud audio comes from the page and leaves for it, by the system's clock."""

    def __init__(self, edge: CallEdge) -> None:
        self.came: list[float] = []
        self.left: list[float] = []
        self.metrics: list[tuple[float, Mapping[str, float | None]]] = []
        play = edge.play

        def watched(frame: AudioFrame | None) -> None:
            if frame is not None and is_loud(frame):
                self.left.append(time.time())
            play(frame)

        vars(edge)["play"] = watched

    def audio(self, frame: AudioFrame) -> AudioFrame:
        if is_loud(frame):
            self.came.append(time.time())
        return frame

    def note(self, event: object) -> None:
        if isinstance(event, TurnMetricsEvent):
            steps = ("endpoint_ms", "first_text_ms", "first_audio_ms", "first_played_ms")
            self.metrics.append((time.time(), {name: getattr(event, name) for name in steps}))


def is_loud(frame: AudioFrame) -> bool:
    """Return whether the page would count this audio as heard."""
    return len(frame) > 0 and int(np.abs(frame.samples.astype(np.int32)).max()) > LOUD * 32768


async def serve(profile: str, log: Path) -> None:
    """Serve the page as ``duologue serve`` does; write the probe's notes when the call ends."""
    instructions = INSTRUCTIONS + " Use at most eight words."
    await Realtime(profile).prepare(SessionSetup(instructions))
    probes: list[Probe] = []

    def make_agent(edge: CallEdge) -> Agent:
        probe = Probe(edge)
        probes.append(probe)
        agent = Agent(
            edge=edge, llm=Realtime(profile), instructions=instructions, processors=[probe]
        )
        agent.events.tap(probe.note)
        return agent

    def save(_: object) -> None:
        notes = {name: getattr(probes[-1], name) for name in ("came", "left", "metrics")}
        log.write_text(json.dumps(notes))

    await serve_calls(make_agent, ServerConfig(port=0), on_end=save)


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn; times in s of the system's clock, and the steps of the engine in ms."""

    spoken: float
    """The person's last loud sample left the page's microphone."""
    came: float
    """The last loud frame reached the agent."""
    left: float
    """The first loud frame of the reply was sent."""
    heard: float
    """The first loud sample of the reply reached the page's loudspeaker."""
    metrics: Mapping[str, float | None]

    @property
    def wait_ms(self) -> float:
        return (self.heard - self.spoken) * 1000

    def steps(self) -> dict[str, float]:
        """Return how many ms each step took; together they are `wait_ms`."""
        endpoint, text, audio, played = (value or 0.0 for value in self.metrics.values())
        return {
            "microphone, Opus and network to the agent": (self.came - self.spoken) * 1000,
            "end of the turn": endpoint,
            "first words": text - endpoint,
            "voice": audio - text,
            "output clock": played - audio,
            "the engine's own silence": (self.left - self.came) * 1000 - played,
            "Opus, network, jitter buffer to the loudspeaker": (self.heard - self.left) * 1000,
        }


def joined(stretches: Sequence[tuple[float, float]], gap_s: float) -> list[tuple[float, float]]:
    """Join stretches of audio that have less than ``gap_s`` seconds between them."""
    found: list[tuple[float, float]] = []
    for begin, end in stretches:
        if found and begin - found[-1][1] < gap_s:
            found[-1] = (found[-1][0], end)
        else:
            found.append((begin, end))
    return found


def turns(seen: Mapping[str, object], notes: Mapping[str, object]) -> Iterator[Turn]:
    """Match what the page heard with what the server wrote down."""
    offset = cast("float", seen["offset"])
    person, agent = (
        [
            (begin + offset, end + offset)
            for begin, end in cast("list[tuple[float, float]]", seen[side])
        ]
        for side in ("person", "agent")
    )
    starts = [begin for begin, _ in joined(agent, 0.3)]
    came, left = (cast("list[float]", notes[side]) for side in ("came", "left"))
    sent = [begin for begin, _ in joined([(at, at) for at in left], 0.3)]
    metrics = cast("list[tuple[float, Mapping[str, float | None]]]", notes["metrics"])
    for _, end in joined(person, 1.0):
        heard = next((at for at in starts if end < at < end + EVERY_S - 2), None)
        if heard is None:
            continue
        last = max((at for at in came if at < end + 0.3), default=None)
        first = next((at for at in sent if end < at), None)
        steps = next((steps for at, steps in metrics if end < at < heard + 1), None)
        if last is not None and first is not None and steps is not None:
            yield Turn(end, last, first, heard, steps)


async def microphone(path: Path, questions: int) -> float:
    """Write the audio of the fake microphone, with pauses between questions; return its seconds."""
    parts = [np.zeros(16000 * 3, np.int16)]
    for number in range(questions):
        clip = (await synthesise(QUESTIONS[number % len(QUESTIONS)])).samples
        parts += [clip, np.zeros(int(16000 * EVERY_S) - len(clip), np.int16)]
    resampler = Resampler(16000, 48000)
    samples = np.concatenate((resampler.push(np.concatenate(parts)), resampler.flush()))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48000)
        file.writeframes(samples.tobytes())
    return len(samples) / 48000


async def main(profile: str, questions: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sound, log = Path(folder) / "questions.wav", Path(folder) / "log.json"
        seconds = await microphone(sound, questions)
        command = [sys.executable, "-m", "benchmarks.browser", profile, "--serve", str(log)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            address = ""
            while not address:
                found = re.search(r"http://\S+", server.stdout.readline())
                address = found[0] if found else ""
            seen = await listen(address, sound, seconds)
            async with asyncio.timeout(10):
                while not log.exists() or not log.read_text():
                    await asyncio.sleep(0.1)
        finally:
            server.terminate()
            server.wait(10)
        found_turns = list(turns(seen, json.loads(log.read_text())))
    for turn in found_turns:
        sys.stderr.write(f"{turn.wait_ms:.0f} ms: {turn.steps()}\n")
    give(figures(profile, found_turns, cast("list[Mapping[str, float]]", seen["stats"])))


def figures(
    profile: str, found: Sequence[Turn], stats: Sequence[Mapping[str, float]]
) -> list[Figure]:
    """Return the figure and, as a second one, where the time goes."""
    if not found:
        return [Figure("browser", "", "nothing was heard", reached=False)]
    waits = [turn.wait_ms for turn in found]
    target = {"tiny": 430, "small": 650}.get(profile, 1200) + 90
    steps = {name: median([turn.steps()[name] for turn in found]) for name in found[0].steps()}
    chromium = []
    for stat in stats:
        if stat.get("jitterBufferEmittedCount"):
            ms = stat["jitterBufferDelay"] / stat["jitterBufferEmittedCount"] * 1000
            chromium.append(f"jitter buffer {ms:.0f}")
        if stat.get("totalSamplesCount"):
            ms = stat["totalPlayoutDelay"] / stat["totalSamplesCount"] * 1000
            chromium.append(f"audio device {ms:.0f}")
    return [
        Figure(
            f"end of speech to first agent sound, headless Chromium, `{profile}`, median",
            f"<= {target} ms",
            f"{median(waits):.0f} ms (p90 {percentile(waits, 90):.0f})",
            median(waits) <= target,
            f"{len(waits)} turns; with Chromium's jitter buffer and audio devices; it draws "
            "without a GPU and shares the cores with the model",
        ),
        Figure(
            "the same, where the time goes, medians",
            "published",
            "; ".join(f"{name} {ms:.0f} ms" for name, ms in steps.items()),
            True,
            "by Chromium's own count, in ms: " + ", ".join(chromium),
        ),
    ]


async def listen(address: str, sound: Path, seconds: float) -> dict[str, object]:
    """Hold the call in Chromium; return when there was audio on each side, in s of its clock."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=[*FLAGS, f"--use-file-for-fake-audio-capture={sound}%noloop"],
        )
        page = await browser.new_page(bypass_csp=True)
        await page.add_init_script(TAP)
        await page.goto(address)
        await page.get_by_role("button", name="Talk").click()
        await page.wait_for_timeout(seconds * 1000)
        seen: dict[str, object] = json.loads(await page.evaluate("JSON.stringify(window.seen)"))
        await browser.close()
    return seen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profile", nargs="?", default="tiny")
    parser.add_argument("--questions", type=int, default=QUESTIONS_ASKED)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        if options.serve:
            run_in_loop(serve(options.profile, options.serve))
        else:
            asyncio.run(main(options.profile, options.questions))
