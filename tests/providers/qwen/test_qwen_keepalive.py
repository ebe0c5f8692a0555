"""Idle sessions: the service closes them after 300 s, and all sessions after 120 min."""

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pytest

pytest.importorskip("websockets", reason="the qwen extra is not installed")
pytest.importorskip("aiohttp", reason="the simulate extra is not installed")

from duologue.audio import AudioFrame
from duologue.events import RealtimeReconnectedEvent, RealtimeReconnectingEvent
from duologue.items import AgentItem, UserItem
from duologue.providers.qwen import Realtime, ServerVAD
from duologue.providers.qwen._keepalive import MAX_TURN_SILENCE_S, SILENCE_CHUNK_S, KeepAlive
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import SendAudio
from duologue.realtime.outputs import (
    ReplyAudio,
    SessionStarted,
    SpeechStarted,
    SpeechStopped,
    UserTranscript,
    UserTurnEnded,
)
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.simulators.faults import Close, Fault
from duologue.simulators.qwen.faults import IDLE_REASON
from duologue.testing import QwenSimulator, run_virtual
from fake_edge import pending_timers

HISTORY = (UserItem("u", "Hello."), AgentItem("a", "Hello to you."))


class RecordingObserver:
    """A session observer that records its calls with the time."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *what: self.calls.append((asyncio.get_running_loop().time(), *what))

    def history(self):
        return HISTORY

    def on_interrupt(self, epoch):
        return ()

    def spoken_text(self, reply_id):
        return None

    def of(self, kind):
        return [what for _, what, *_ in self.calls if isinstance(what, kind)]


@asynccontextmanager
async def session(simulator=None, **options):
    """Run a silent session with the simulated service; yield (model, observer, service)."""
    transcripts = ["what time is it"]
    more = {"replies": ["Noon."] * 9, "transcripts": transcripts, **(simulator or {})}
    async with QwenSimulator(**more) as service:
        options.setdefault("reconnect", ReconnectPolicy(base_s=0.1))
        options.setdefault("turn_detection", ServerVAD(silence_duration_ms=300))
        model = Realtime(base_url=service.url, api_key=service.key, **options)
        observer = RecordingObserver()
        task = asyncio.create_task(model.run(SessionSetup("be kind"), observer))
        await model.ready()
        try:
            yield model, observer, service
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert not pending_timers()


def speech(seconds, rate=16000):
    at = np.arange(round(seconds * rate))
    return AudioFrame((8000 * np.sin(at * 0.15)).astype(np.int16), rate)


def appends(service):
    return [
        event["audio"]
        for one in service.sessions
        for event in one.events_in
        if event["type"] == "input_audio_buffer.append"
    ]


def test_silence_keeps_a_muted_session_open():
    async def run():
        async with session() as (model, observer, service):
            await asyncio.sleep(1000)
            assert model.connected
            assert len(service.sessions) == 1
            assert not observer.of(RealtimeReconnectingEvent)
            assert len(appends(service)) == pytest.approx(1000 / 20, abs=3)
            model.request_reply("r")
            await asyncio.sleep(2)
            assert observer.of(ReplyAudio)

    run_virtual(run(), grace=0.0)


def test_service_closes_an_idle_session(monkeypatch):
    monkeypatch.setattr("duologue.providers.qwen._keepalive.SILENCE_INTERVAL_S", 1e9)

    async def run():
        async with session() as (model, observer, service):
            await asyncio.sleep(305)
            (event,) = observer.of(RealtimeReconnectedEvent)
            assert event.outcome == "replayed"
            assert "no response was generated" in observer.of(RealtimeReconnectingEvent)[0].reason
            assert len(service.sessions) == 2
            assert model.connected

    run_virtual(run(), grace=0.0)


def test_roll_over_happens_before_the_service_closes():
    async def run():
        async with session(idle="roll_over") as (model, observer, service):
            await asyncio.sleep(1000)
            events = observer.of(RealtimeReconnectedEvent)
            assert len(events) == 3
            assert [(e.outcome, e.lost_ms, e.gap_ms) for e in events] == [("replayed", 0, 0)] * 3
            assert len(service.sessions) == 4
            assert not appends(service)
            assert model.connected
            conversation = service.sessions[-1].conversation
            assert [item["role"] for item in conversation] == ["user", "assistant"]

    run_virtual(run(), grace=0.0)


def test_reply_restarts_the_idle_timer():
    async def run():
        async with session(idle="roll_over") as (model, observer, service):
            for turn in range(5):
                await asyncio.sleep(200)
                model.request_reply(f"r{turn}")
            assert len(service.sessions) == 1
            assert not observer.of(RealtimeReconnectedEvent)

    run_virtual(run(), grace=0.0)


def test_session_rolls_over_before_two_hours():
    async def run():
        async with session() as (model, observer, service):
            await asyncio.sleep(7190)
            (event,) = observer.of(RealtimeReconnectedEvent)
            assert (event.outcome, event.lost_ms, event.gap_ms) == ("replayed", 0, 0)
            ((at, _),) = [
                one for one in observer.calls if isinstance(one[1], RealtimeReconnectedEvent)
            ]
            assert 7200 - 60 <= at < 7200
            await asyncio.sleep(30)
            assert len(service.sessions) == 2
            assert model.connected

    run_virtual(run(), grace=0.0)


def test_close_of_an_idle_session_reconnects():
    async def run():
        faults = [Fault(Close(1007, IDLE_REASON), at=2.0)]
        async with session({"faults": faults}) as (model, observer, service):
            await asyncio.sleep(4)
            assert len(observer.of(RealtimeReconnectedEvent)) == 1
            assert model.connected
            assert len(service.sessions) == 2

    run_virtual(run(), grace=0.0)


@pytest.mark.parametrize("idle", ["silence", "roll_over"])
def test_turn_ends_after_the_microphone_is_muted_within_it(idle):
    async def run():
        async with session(idle=idle) as (model, observer, _service):
            for _ in range(30):
                model.send_audio(speech(0.02))
                await asyncio.sleep(0.02)
            await asyncio.sleep(5)
            (ended,) = observer.of(UserTurnEnded)
            (stopped,) = observer.of(SpeechStopped)
            assert stopped.position / 16000 == pytest.approx(0.6, abs=0.35)
            assert ended.reply_follows
            assert [t.text for t in observer.of(UserTranscript) if t.final] == ["what time is it"]
            assert observer.of(ReplyAudio)
            # Then nothing more happens.
            before = len(observer.calls)
            await asyncio.sleep(10)
            assert len(observer.calls) == before

    run_virtual(run(), grace=0.0)


def test_nothing_is_sent_without_a_connection():
    from duologue.simulators.faults import Handshake

    async def run():
        policy = ReconnectPolicy(base_s=1.0, max_attempts=100, keep_s=1.0)
        async with session(reconnect=policy) as (model, _ears, service):
            service.faults = [Fault(Handshake(503), times=12)]
            await service.kill()
            await asyncio.sleep(30)
            assert not model.connected
            while not model.connected:
                await asyncio.sleep(0.1)
            assert not appends(service)
            await asyncio.sleep(30)
            assert appends(service)

    run_virtual(run(), grace=0.0)


class SilentConnection:
    """A connection without outputs."""

    def __init__(self):
        self.sent = []
        self.receive = None

    async def run(self, receive):
        self.receive = receive
        await asyncio.Event().wait()

    def transmit(self, command):
        self.sent.append(command)


@pytest.mark.parametrize("idle", ["silence", "roll_over"])
def test_silence_stops_for_a_turn_that_never_ends(idle):
    async def run():
        loop = asyncio.get_running_loop()
        from duologue.clock import LoopClock

        silence = []
        rolled = []
        watcher = KeepAlive(
            LoopClock(),
            lambda frame: watched.transmit(SendAudio(frame)),
            is_connected=lambda: True,
            roll_over=rolled.append if idle == "roll_over" else None,
        )
        connection = SilentConnection()
        watched = watcher.watch(connection)
        watcher.start()
        task = asyncio.create_task(watched.run(silence.append))
        await asyncio.sleep(0)
        connection.receive(SessionStarted())
        connection.receive(SpeechStarted("u"))
        began = loop.time()
        await asyncio.sleep(100)
        in_turn = MAX_TURN_SILENCE_S / SILENCE_CHUNK_S
        more = 0 if idle == "roll_over" else (100 - MAX_TURN_SILENCE_S) / 20
        assert len(connection.sent) == pytest.approx(in_turn + more, abs=2)
        # Silence is sent again in the next turn.
        connection.receive(UserTurnEnded("u"))
        connection.receive(SpeechStarted("v"))
        before = len(connection.sent)
        await asyncio.sleep(1)
        assert len(connection.sent) - before == pytest.approx(10, abs=3)
        assert loop.time() - began == pytest.approx(101)
        watcher.close()
        task.cancel()
        await asyncio.wait([task])
        assert not pending_timers()

    run_virtual(run(), grace=0.0)
