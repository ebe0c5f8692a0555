"""Calls through the edge, from the native caller and from a real Chromium."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
import wave
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("aiortc", reason="the webrtc extra is not installed")

from duologue.agent.agent import Agent
from duologue.agent.processors import Processor
from duologue.audio import AudioFrame
from duologue.clock import LoopClock
from duologue.edges.webrtc import MAX_WAITING_EVENTS, CallEdge, PlayedCounter
from duologue.errors import ConfigError
from duologue.events import ErrorEvent
from duologue.items import AgentItem
from duologue.json_types import Json
from duologue.rtc.config import PeerConfig, PeerError
from duologue.rtc.peer import Peer
from duologue.testing import ScriptedRealtime
from duologue.testing.caller import Caller, MemorySignalling, memory_signalling
from duologue.testing.network import BadNetwork
from duologue.testing.scripted import Reply
from duologue.ticker import ticker_for
from duologue.video import VideoFrame

CHROMIUM = "/usr/bin/chromium"
TONE = AudioFrame((8000 * np.sin(np.arange(480) * 0.2)).astype(np.int16), 24000)


class Echo:
    """Plays received audio back on the output clock, as an agent would."""

    is_idle = True

    wants_video = True

    def __init__(self) -> None:
        self.outages: list[str] = []
        self.edge: CallEdge | None = None
        self.received_frames: list[AudioFrame] = []
        self.texts: list[str] = []
        self.video_frames: list[Callable[[], VideoFrame]] = []
        self.reports: list[int] = []
        self.given_samples = 0
        self._next: list[AudioFrame] = []
        self._clock = None

    def push_audio(self, frame: AudioFrame) -> None:
        self.received_frames.append(frame)
        self._next.append(frame)

    def push_video(self, frame: Callable[[], VideoFrame]) -> None:
        self.video_frames.append(frame)

    def push_text(self, text: str) -> None:
        self.texts.append(text)

    def connection_lost(self) -> None:
        self.outages.append("lost")

    def connection_restored(self) -> None:
        self.outages.append("restored")

    def report_played(self, samples: int) -> None:
        assert samples <= self.given_samples
        self.reports.append(samples)

    def tick(self, _: float) -> None:
        assert self.edge is not None
        frame = self._next.pop(0) if self._next else None
        # After an outage, silence for all of it comes at once.
        self.edge.play(frame if frame is not None and len(frame) == 480 else None)
        self.given_samples += 480


@asynccontextmanager
async def answering(line: MemorySignalling, **options: float) -> AsyncIterator[Echo]:
    """Run an edge with an echo until the block or the caller's signalling ends."""
    echo = Echo()
    edge = echo.edge = CallEdge(line, loopback=True, **options)
    subscription = None

    def ready() -> None:
        nonlocal subscription
        subscription = ticker_for(LoopClock()).subscribe(echo.tick)

    running = asyncio.ensure_future(edge.run(echo, ready))
    try:
        yield echo
        if not running.done():
            running.cancel()
        await asyncio.wait([running], timeout=0.6)
        assert running.done()
        if not running.cancelled():
            running.result()
    finally:
        running.cancel()
        if subscription is not None:
            subscription.cancel()


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_call_runs_from_offer_to_bye() -> None:
    tasks = asyncio.all_tasks()
    ours, theirs = memory_signalling()
    said: list[AudioFrame] = []
    async with answering(theirs) as echo:
        edge = echo.edge
        assert edge is not None
        async with Caller(ours, on_audio=said.append) as caller:
            for i in range(60):
                caller.send(TONE if 20 <= i < 40 else None)
                if i % 10 == 9:
                    caller.report_played()
                await asyncio.sleep(0.02)
            await caller.send_text("hello")
            edge.send_event({"type": "UserTurnStartedEvent", "participant": "you"})
            await until(lambda: echo.texts and caller.events)
            assert echo.texts == ["hello"]
            assert caller.events[0]["type"] == "UserTurnStartedEvent"
            assert sum(np.abs(f.samples).max() > 3000 for f in said) in range(19, 40)
            # Reported samples lag behind the given ones, and only grow.
            assert len(echo.reports) >= 4
            assert echo.reports == sorted(set(echo.reports))
            assert echo.given_samples - echo.reports[-1] < 480 * 20
            assert edge.quality == "confirmed"
        await until(lambda: edge.state == "closed", 1)
    await asyncio.sleep(0.05)
    assert asyncio.all_tasks() <= tasks


async def test_mute_sends_silence_to_the_agent() -> None:
    ours, theirs = memory_signalling()
    async with answering(theirs) as echo, Caller(ours, on_audio=lambda f: None) as caller:
        await ours.send({"type": "mute", "muted": True})
        await asyncio.sleep(0.05)
        for _ in range(10):
            caller.send(TONE)
            await asyncio.sleep(0.02)
        await until(lambda: len(echo.received_frames) == 10)
        assert not any(f.samples.any() for f in echo.received_frames)
        await ours.send({"type": "mute", "muted": False})
        await asyncio.sleep(0.05)
        caller.send(TONE)
        await until(lambda: len(echo.received_frames) == 11)
        assert echo.received_frames[-1].samples.any()


async def test_the_end_of_the_signalling_ends_the_call() -> None:
    ours, theirs = memory_signalling()
    async with answering(theirs) as echo, Caller(ours, on_audio=lambda f: None) as caller:
        ours.close()
        await until(lambda: echo.edge is not None and echo.edge.state == "closed", 1)
        await until(caller.ended.is_set, 1)


async def test_cancelling_closes_the_call_within_half_a_second() -> None:
    tasks = asyncio.all_tasks()
    ours, theirs = memory_signalling()
    async with answering(theirs) as echo, Caller(ours, on_audio=lambda f: None):
        assert echo.edge is not None
        start = time.perf_counter()
    assert time.perf_counter() - start < 0.5
    await asyncio.sleep(0.05)
    assert asyncio.all_tasks() <= tasks


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([{"type": "offer", "sdp": "v=0\r\n"}], "no audio"),
        ([], "no offer within 0.2 s"),
        ([{"type": "text", "text": "hi"}], "no offer within 0.2 s"),
    ],
)
async def test_a_call_that_can_not_be_made_reports_why_on_both_sides(
    messages: list[Mapping[str, Json]], reason: str
) -> None:
    ours, theirs = memory_signalling()
    edge = CallEdge(theirs, loopback=True, offer_timeout=0.2)
    for message in messages:
        await ours.send(message)
    with pytest.raises(PeerError, match=reason):
        await edge.run(Echo(), lambda: None)
    error = await ours.receive()
    assert error is not None
    assert error["code"] == "call_failed"
    assert reason in str(error["message"])


async def test_an_invalid_message_is_answered_and_the_call_continues() -> None:
    ours, theirs = memory_signalling()
    async with answering(theirs) as echo, Caller(ours, on_audio=lambda f: None) as caller:
        for bad in ({"type": "dance"}, {"type": "text", "text": "x" * 5000}, {"type": "mute"}, {}):
            await ours.send(bad)
        await caller.send_text("still here")
        await until(lambda: echo.texts == ["still here"])
        await until(lambda: len(caller.errors) == 4)
        assert all(e.startswith("bad_message") for e in caller.errors)
        for nonsense in ("[", "{}", '{"type":"played"}', '{"type":"played","rtp":-5}', "7"):
            caller.peer.send_message(nonsense)
        await until(lambda: echo.edge is not None and echo.edge.counters["reports_ignored"] == 5)
        assert echo.reports == []


async def test_events_for_a_slow_page_are_bounded() -> None:
    _, theirs = memory_signalling()
    edge = CallEdge(theirs)
    for i in range(MAX_WAITING_EVENTS + 10):
        edge.send_event({"n": i})
    assert edge.events_dropped == 10


async def test_a_lost_connection_raises_and_reports_why() -> None:
    ours, theirs = memory_signalling()
    edge = CallEdge(theirs, loopback=True, connect_timeout=0.3)
    async with BadNetwork() as network:
        network.cut = True
        caller = Caller(ours, on_audio=lambda f: None, reroute=network.reroute, timeout=2)

        async def call() -> None:
            async with caller:
                pass

        calling = asyncio.ensure_future(call())
        with pytest.raises(PeerError, match=r"no connection within 0\.3 s"):
            await edge.run(Echo(), lambda: None)
        with pytest.raises(PeerError):
            await calling


class Routes:
    """A network for each offer."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.networks: list[BadNetwork] = []
        self._stack = stack

    async def add(self) -> None:
        self.networks.append(await self._stack.enter_async_context(BadNetwork()))

    def reroute(self, kind: str, sdp: str) -> str:
        return self.networks[-1].reroute(kind, sdp)


async def send_while(caller: Caller, condition: Callable[[], object]) -> None:
    """Speak and report as a page does while the condition holds."""
    async with asyncio.timeout(8):
        while condition():
            caller.send(TONE)
            caller.report_played()
            await asyncio.sleep(0.02)


async def test_a_call_moves_to_another_connection_and_the_agent_pauses_meanwhile() -> None:
    ours, theirs = memory_signalling()
    heard: list[AudioFrame] = []
    async with AsyncExitStack() as stack:
        routes = Routes(stack)
        await routes.add()
        echo = await stack.enter_async_context(answering(theirs, keep_s=5))
        edge = echo.edge
        assert edge is not None
        caller = Caller(ours, on_audio=heard.append, reroute=routes.reroute)
        await stack.enter_async_context(caller)
        await send_while(caller, lambda: len(echo.reports) < 5)
        routes.networks[0].cut = True
        cut_at = time.perf_counter()
        await send_while(caller, lambda: not echo.outages)
        assert 0.4 < time.perf_counter() - cut_at < 1.5
        assert edge.state == "interrupted"
        reported, given = echo.reports[-1], echo.given_samples
        await routes.add()
        await caller.restart()
        heard.clear()
        received = len(echo.received_frames)
        await send_while(caller, lambda: len(echo.reports) == echo.reports.index(reported) + 1)
        assert echo.outages == ["lost", "restored"]
        assert (edge.state, edge.restarts, edge.quality) == ("connected", 1, "confirmed")
        # What went into the dead connection is never reported, except as passed over.
        assert echo.reports[-1] > given
        assert heard
        assert len(echo.received_frames) > received
        assert edge.counters["packets"] >= len(echo.received_frames) - 2


async def test_speech_that_went_into_a_dead_connection_is_spoken_again() -> None:
    ours, theirs = memory_signalling()
    heard: list[AudioFrame] = []
    words = "We have twelve rooms, a garden, and a library with a fireplace."
    async with AsyncExitStack() as stack:
        routes = Routes(stack)
        await routes.add()
        model = ScriptedRealtime([Reply(words, seconds=2.0), Reply(words, seconds=2.0)])
        edge = CallEdge(theirs, loopback=True, keep_s=5)
        agent = Agent(edge=edge, llm=model)
        await stack.enter_async_context(joined(agent))
        caller = Caller(ours, on_audio=heard.append, reroute=routes.reroute)
        await stack.enter_async_context(caller)

        def loud_s() -> float:
            return sum(len(f) for f in heard if np.abs(f.samples).max(initial=0) > 300) / 24000

        def spoken() -> list[AgentItem]:
            items = [item for item in agent.conversation.items if isinstance(item, AgentItem)]
            return [item for item in items if item.state != "speaking"]

        async def lose() -> float:
            routes.networks[-1].cut = True
            before = loud_s()
            await send_while(caller, lambda: edge.state != "interrupted")
            assert loud_s() - before < 0.1
            return before

        async def move() -> None:
            await routes.add()
            await caller.restart()

        await caller.send_text("Tell me about the hotel.")
        await send_while(caller, lambda: loud_s() < 0.6)
        await lose()
        await move()
        await send_while(caller, lambda: not spoken())
        assert [(item.state, item.text) for item in spoken()] == [("heard", words)]
        assert 1.9 < loud_s() < 2.8
        # An interruption meanwhile cuts where the person heard it last.
        heard.clear()
        await caller.send_text("Once more.")
        await send_while(caller, lambda: loud_s() < 0.6)
        before_s = await lose()
        agent.interrupt()
        item = spoken()[-1]
        assert item.state == "cut"
        assert item.played_ms <= before_s * 1000 + 40
        await move()


async def test_a_connection_that_comes_back_by_itself_goes_on() -> None:
    ours, theirs = memory_signalling()
    async with AsyncExitStack() as stack:
        routes = Routes(stack)
        await routes.add()
        echo = await stack.enter_async_context(answering(theirs, keep_s=5))
        caller = Caller(ours, on_audio=lambda frame: None, reroute=routes.reroute)
        await stack.enter_async_context(caller)
        await send_while(caller, lambda: not echo.reports)
        routes.networks[0].cut = True
        await send_while(caller, lambda: not echo.outages)
        routes.networks[0].cut = False
        await send_while(caller, lambda: len(echo.outages) < 2)
        assert echo.outages == ["lost", "restored"]
        # Offers that can't be used, or come too fast, are refused, and the call goes on.
        for _ in range(2):
            await ours.send({"type": "offer", "sdp": "v=0", "restart": True})
        await until(lambda: len(caller.errors) == 2)
        assert "no audio" in caller.errors[0]
        assert "too many offers" in caller.errors[1]
        received = len(echo.received_frames)
        await send_while(caller, lambda: len(echo.received_frames) == received)


async def test_a_page_that_is_loaded_again_before_it_is_connected_begins_the_call() -> None:
    ours, theirs = memory_signalling()

    class LoadedAgain:
        receive = staticmethod(ours.receive)

        async def send(self, message: Mapping[str, Json]) -> None:
            await ours.send({**message, "restart": True})

    async with answering(theirs, keep_s=5) as echo:
        config = PeerConfig(send_rate=24000, receive_rate=24000, loopback=True)
        gone = Peer(config, on_audio=lambda frame: None, on_state=lambda state, reason: None)
        await ours.send({"type": "offer", "sdp": await gone.offer()})
        await ours.receive()
        await gone.close()
        async with Caller(LoadedAgain(), on_audio=lambda frame: None) as caller:
            await send_while(caller, lambda: not echo.reports)


async def test_a_call_whose_page_does_not_come_back_ends() -> None:
    ours, theirs = memory_signalling()
    edge = CallEdge(theirs, loopback=True, keep_s=0.4)
    echo = Echo()
    echo.edge = edge
    running = asyncio.ensure_future(edge.run(echo, lambda: None))
    ticks = ticker_for(LoopClock()).subscribe(echo.tick)
    async with Caller(ours, on_audio=lambda frame: None) as caller:
        await send_while(caller, lambda: not echo.received_frames)
        await caller.peer.close()
        with pytest.raises(PeerError, match=r"did not come back within 0\.4 s"):
            await running
    ticks.cancel()
    assert echo.outages == ["lost"]


def test_a_rate_that_opus_does_not_support_is_refused() -> None:
    with pytest.raises(ConfigError, match="22050"):
        CallEdge(memory_signalling()[0], rate=22050)


@given(
    st.integers(0, 0xFFFFFFFF),
    st.lists(
        st.tuples(st.integers(0, 60), st.integers(-5, 3000), st.integers(0, 959), st.booleans()),
        max_size=60,
    ),
)
def test_played_samples_never_decrease_and_never_exceed_those_sent(
    origin: int, moves: list[tuple[int, int, int, bool]]
) -> None:
    counter, frames, last = PlayedCounter(480), 0, 0
    for sent, back, within, wild in moves:
        frames += sent
        following = (origin + frames * 960) & 0xFFFFFFFF
        rtp = back * 2654435761 & 0xFFFFFFFF if wild else following - back * 960 + within
        counter.update(rtp & 0xFFFFFFFF, following, frames)
        assert last <= counter.samples <= max(0, frames - 1) * 480
        last = counter.samples


def test_a_report_counts_up_to_the_start_of_its_frame_across_the_wrap() -> None:
    counter = PlayedCounter(480)
    origin = 0xFFFFFFFF - 960 * 5
    for i in range(1, 20):
        assert counter.update((origin + i * 960) & 0xFFFFFFFF, origin + 20 * 960 & 0xFFFFFFFF, 20)
        assert counter.samples == i * 480
    assert not counter.update((origin + 25 * 960) & 0xFFFFFFFF, origin + 20 * 960 & 0xFFFFFFFF, 20)
    assert not counter.update((origin - 5 * 960) & 0xFFFFFFFF, origin + 20 * 960 & 0xFFFFFFFF, 20)
    assert counter.ignored == 2


PAGE = """<!doctype html><script>
async function go() {
  const media = await navigator.mediaDevices.getUserMedia({video: true,
    audio: {echoCancellation: false, noiseSuppression: false, autoGainControl: false}});
  const context = new AudioContext({latencyHint: 'interactive'}); await context.resume();
  const code = `class M extends AudioWorkletProcessor { process(inputs) {
    const x = inputs[0][0]; if (!x) return true;
    let m = 0; for (const s of x) m = Math.max(m, Math.abs(s));
    if (m > 0.1 && this.hot !== true) this.port.postMessage(0);
    this.calm = m > 0.1 ? 0 : (this.calm || 0) + 1;
    this.hot = m > 0.1 || (this.hot && this.calm < 20);
    return true; } }
    registerProcessor('m', M)`;
  await context.audioWorklet.addModule(URL.createObjectURL(
    new Blob([code], {type: 'text/javascript'})));
  window.mic = []; window.back = [];
  const watch = (stream, times) => { const node = new AudioWorkletNode(context, 'm');
    node.port.onmessage = () => times.push(performance.now());
    context.createMediaStreamSource(stream).connect(node); };
  watch(media, mic);
  const peer = new RTCPeerConnection({iceServers: []});
  const channel = peer.createDataChannel('duologue');
  for (const track of media.getTracks()) peer.addTrack(track, media);
  peer.ontrack = event => { const stream = new MediaStream([event.track]);
    const player = new Audio(); player.srcObject = stream; player.play(); watch(stream, back);
    setInterval(() => { const source = event.receiver.getSynchronizationSources()[0];
      if (source && channel.readyState === 'open')
        channel.send(JSON.stringify({type: 'played', rtp: source.rtpTimestamp})); }, 100); };
  window.take = async message => {
    if (message.type === 'answer') await peer.setRemoteDescription(message); };
  await peer.setLocalDescription(await peer.createOffer());
  if (peer.iceGatheringState !== 'complete') await new Promise(done => {
    peer.onicegatheringstatechange = () => peer.iceGatheringState === 'complete' && done(); });
  send({type: 'offer', sdp: peer.localDescription.sdp});
}
</script>"""


def beeps(path: Path) -> None:
    second = np.zeros(48000, np.int16)
    second[:2400] = (20000 * np.sin(np.arange(2400) * 0.13)).astype(np.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48000)
        file.writeframes(np.tile(second, 10).tobytes())


@pytest.mark.browser
async def test_chromium_plays_its_echo_and_confirms_it(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    if not os.access(CHROMIUM, os.X_OK):
        pytest.skip(f"no Chromium at {CHROMIUM}: apt-get install chromium")
    beeps(tmp_path / "beeps.wav")
    ours, theirs = memory_signalling()
    flags = [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={tmp_path / 'beeps.wav'}",
        "--autoplay-policy=no-user-gesture-required",
        "--allow-loopback-in-peer-connection",
    ]
    async with playwright.async_playwright() as engine, answering(theirs) as echo:
        browser = await engine.chromium.launch(executable_path=CHROMIUM, args=flags)
        try:
            page = await browser.new_page()
            await page.route(
                "**/*", lambda route: route.fulfill(body=PAGE, content_type="text/html")
            )
            await page.expose_function("send", ours.send)
            await page.goto("http://127.0.0.1:9/")
            await page.evaluate("go()")
            answer = await ours.receive()
            await page.evaluate("message => take(message)", answer)
            await until(lambda: len(echo.received_frames) > 200, 15)
            mic, back = await page.evaluate("[mic, back]")
        finally:
            await browser.close()
        edge = echo.edge
        assert edge is not None
        trips = [min(b - m for m in mic if m < b) for b in back if any(m < b for m in mic)]
        print("browser round trip ms", json.dumps([round(t) for t in trips]), edge.counters)
        assert len(trips) >= 3
        assert sorted(trips)[len(trips) // 2] < 250
        # Chromium reports about as much as it was given, delayed by its buffers.
        assert len(echo.reports) > 20
        assert echo.given_samples - echo.reports[-1] < 24000
        assert edge.counters["reports_ignored"] == 0
        assert edge.counters["lost"] == 0
        assert echo.video_frames
        assert echo.video_frames[-1]().width > 0


def agent_on(edge: CallEdge, **options: object) -> Agent:
    return Agent(edge=edge, llm=ScriptedRealtime(echo=True), **options)


@asynccontextmanager
async def joined(agent: Agent) -> AsyncIterator[list[ErrorEvent]]:
    """Yield a joined agent and its errors until the caller hangs up."""
    errors: list[ErrorEvent] = []

    async def converse() -> None:
        async with agent.join():
            await agent.finish()

    @agent.events.subscribe
    def told(event: ErrorEvent) -> None:
        errors.append(event)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(converse())
        yield errors


async def test_a_model_that_can_not_see_gets_no_video() -> None:
    ours, theirs = memory_signalling()
    answers: list[str] = []

    def reroute(kind: str, sdp: str) -> str:
        if kind == "offer":
            return sdp
        answers.append(sdp)
        return sdp

    caller = Caller(ours, on_audio=lambda frame: None, reroute=reroute)
    caller.peer = Peer(
        PeerConfig(loopback=True, send_video=True),
        on_audio=lambda frame: None,
        on_state=caller._state_changed,
    )
    async with joined(agent_on(CallEdge(theirs, loopback=True))) as errors, caller:
        threads = {thread.name for thread in threading.enumerate()}
    assert "a=inactive" in answers[0].partition("m=video")[2]
    assert "video-decoder" not in threads
    assert errors == []


async def test_a_processor_that_fails_on_input_audio_is_reported_and_the_call_continues() -> None:
    class Broken(Processor):
        def audio(self, frame: AudioFrame) -> AudioFrame | None:
            raise RuntimeError("no such filter")

    ours, theirs = memory_signalling()
    agent = agent_on(CallEdge(theirs, loopback=True), processors=[Broken()])
    async with joined(agent) as errors, Caller(ours, on_audio=lambda frame: None) as caller:
        for _ in range(20):
            caller.send(TONE)
            await asyncio.sleep(0.02)
        await until(lambda: errors)
        assert not caller.ended.is_set()
    assert len(errors) == 1
    assert "no such filter" in errors[0].message


async def test_an_invalid_offer_does_not_stop_the_offer_timeout() -> None:
    ours, theirs = memory_signalling()
    edge = CallEdge(theirs, loopback=True, offer_timeout=0.2)
    for message in ({"type": "offer"}, {"type": "offer", "sdp": 5}):
        await ours.send(message)
    with pytest.raises(PeerError, match="no offer within"):
        await edge.run(Echo(), lambda: None)


async def test_an_endlessly_nested_report_is_ignored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ours, theirs = memory_signalling()
    async with answering(theirs) as echo, Caller(ours, on_audio=lambda frame: None) as caller:
        for text in ("[" * 1000, '{"a":' * 200, "1" * 999, "\ud800"):
            caller.peer.send_message(text)
        assert echo.edge is not None
        edge = echo.edge
        await until(lambda: edge.counters["reports_ignored"] >= 3)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
