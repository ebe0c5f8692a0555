"""Time from the end of speech to the first audio of the reply, in headless Chromium.

The microphone is fake. Both times are taken inside the page, with one audio clock: what the
microphone provides and what the loudspeaker gets. The questions are those of the wav edge.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

import numpy as np
from playwright.async_api import async_playwright

from benchmarks.corpus import QUESTIONS, synthesise
from benchmarks.engine import INSTRUCTIONS
from benchmarks.figures import Figure, give, median, percentile
from duologue.audio import Resampler

EVERY_S = 9.0
QUESTIONS_ASKED = 15
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
  const levels = window.levels = {person: [], agent: []};
  const code = `class Level extends AudioWorkletProcessor {
    process([input]) {
      const x = input[0];
      if (x) { let m = 0; for (const s of x) m = Math.max(m, Math.abs(s));
        if (m > 0.004) this.port.postMessage([currentTime, m]); }
      return true;
    } }
    registerProcessor("level", Level);`;
  const ready = clock.audioWorklet.addModule(
    URL.createObjectURL(new Blob([code], {type: "text/javascript"})));
  const listen = async (stream, into) => {
    await ready;
    await clock.resume();
    const node = new AudioWorkletNode(clock, "level");
    node.port.onmessage = ({data}) => into.push(data[0]);
    clock.createMediaStreamSource(stream).connect(node);
  };
  const get = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async wanted => {
    const stream = await get({...wanted, audio: wanted.audio && {
      echoCancellation: false, noiseSuppression: false, autoGainControl: false}});
    if (stream.getAudioTracks().length) listen(stream, levels.person);
    return stream;
  };
  const Peer = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Peer {
    constructor(...args) {
      super(...args);
      this.addEventListener("track", event => {
        if (event.track.kind === "audio") listen(new MediaStream([event.track]), levels.agent);
      });
    }
  };
})();
"""


def bursts(times: list[float], gap_s: float) -> list[tuple[float, float]]:
    """Return start and end of each stretch of audio, in seconds."""
    found: list[list[float]] = []
    for time in times:
        if found and time - found[-1][1] < gap_s:
            found[-1][1] = time
        else:
            found.append([time, time])
    return [(begin, end) for begin, end in found]


async def microphone(path: Path) -> float:
    """Write the audio of the fake microphone, with pauses between questions; return its seconds."""
    parts = [np.zeros(16000 * 3, np.int16)]
    for number in range(QUESTIONS_ASKED):
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


async def main() -> None:
    profile = sys.argv[1] if len(sys.argv) > 1 else "tiny"
    instructions = INSTRUCTIONS + " Use at most eight words."
    serve = [sys.executable, "-m", "duologue", "serve", "--profile", profile, "--port", "0"]
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "questions.wav"
        seconds = await microphone(sound)
        server = subprocess.Popen(
            [*serve, "--instructions", instructions], stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            address = ""
            while not address:
                found = re.search(r"http://\S+", server.stdout.readline())
                address = found[0] if found else ""
            levels = await listen(address, sound, seconds)
        finally:
            server.terminate()
            server.wait(10)
    heard = [begin for begin, _ in bursts(levels["agent"], 0.3)]
    waits = []
    for _, end in bursts(levels["person"], 1.0):
        first = next((begin for begin in heard if end < begin < end + EVERY_S - 3), None)
        if first is not None:
            waits.append((first - end) * 1000)
    if not waits:
        give([Figure("browser", "", "nothing was heard", reached=False)])
        return
    target = {"tiny": 430, "small": 650}.get(profile, 1200) + 90
    give(
        [
            Figure(
                f"end of speech to first agent sound, headless Chromium, `{profile}`, median",
                f"<= {target} ms",
                f"{median(waits):.0f} ms (p90 {percentile(waits, 90):.0f})",
                median(waits) <= target,
                f"{len(waits)} turns; with Chromium's jitter buffer and audio devices; it draws "
                "without a GPU and shares the cores with the model",
            )
        ]
    )


async def listen(address: str, sound: Path, seconds: float) -> dict[str, list[float]]:
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
        levels: dict[str, list[float]] = json.loads(
            await page.evaluate("JSON.stringify(window.levels)")
        )
        await browser.close()
    return levels


if __name__ == "__main__":
    asyncio.run(main())
