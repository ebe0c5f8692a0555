"""Sessions in which nobody speaks: the service closes them after 300 s, and all after 120 min."""

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


class Ears:
    """Hears a session, and remembers what it was told with the time."""

    def __init__(self):
        self.told = []

    def __getattr__(self, name):
        return lambda *what: self.told.append((asyncio.get_running_loop().time(), *what))

    def history(self):
        return HISTORY

    def on_interrupt(self, epoch):
        return ()

    def spoken_text(self, reply_id):
        return None

    def of(self, kind):
        return [what for _, what, *_ in self.told if isinstance(what, kind)]


@asynccontextmanager
async def session(simulator=None, **options):
    """A model in a session with the simulated service, without a sound: (model, ears, service)."""
    transcripts = ["what time is it"]
    more = {"replies": ["Noon."] * 9, "transcripts": transcripts, **(simulator or {})}
    async with QwenSimulator(**more) as service:
        options.setdefault("reconnect", ReconnectPolicy(base_s=0.1))
        options.setdefault("turn_detection", ServerVAD(silence_duration_ms=300))
        model = Realtime(base_url=service.url, api_key=service.key, **options)
        ears = Ears()
        task = asyncio.create_task(model.run(SessionSetup("be kind"), ears))
        await model.ready()
        try:
            yield model, ears, service
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
        async with session() as (model, ears, service):
            await asyncio.sleep(1000)
            assert model.connected
            assert len(service.sessions) == 1
            assert not ears.of(RealtimeReconnectingEvent)
            assert len(appends(service)) == pytest.approx(1000 / 20, abs=3)
            model.request_reply("r")
            await asyncio.sleep(2)
            assert ears.of(ReplyAudio)

    run_virtual(run(), grace=0.0)


def test_the_service_does_close_what_is_left_alone(monkeypatch):
    monkeypatch.setattr("duologue.providers.qwen._keepalive.SILENCE_INTERVAL_S", 1e9)

    async def run():
        async with session() as (model, ears, service):
            await asyncio.sleep(305)
            (event,) = ears.of(RealtimeReconnectedEvent)
            assert event.outcome == "replayed"
            assert "no response was generated" in ears.of(RealtimeReconnectingEvent)[0].reason
            assert len(service.sessions) == 2
            assert model.connected

    run_virtual(run(), grace=0.0)


def test_a_roll_over_comes_before_the_service_would_close():
    async def run():
        async with session(idle="roll_over") as (model, ears, service):
            await asyncio.sleep(1000)
            events = ears.of(RealtimeReconnectedEvent)
            assert len(events) == 3
            assert [(e.outcome, e.lost_ms, e.gap_ms) for e in events] == [("replayed", 0, 0)] * 3
            assert len(service.sessions) == 4
            assert not appends(service)
            assert model.connected
            conversation = service.sessions[-1].conversation
            assert [item["role"] for item in conversation] == ["user", "assistant"]

    run_virtual(run(), grace=0.0)


def test_a_reply_makes_a_quiet_session_young_again():
    async def run():
        async with session(idle="roll_over") as (model, ears, service):
            for turn in range(5):
                await asyncio.sleep(200)
                model.request_reply(f"r{turn}")
            assert len(service.sessions) == 1
            assert not ears.of(RealtimeReconnectedEvent)

    run_virtual(run(), grace=0.0)


def test_two_hours_roll_over_before_the_service_closes():
    async def run():
        async with session() as (model, ears, service):
            await asyncio.sleep(7190)
            (event,) = ears.of(RealtimeReconnectedEvent)
            assert (event.outcome, event.lost_ms, event.gap_ms) == ("replayed", 0, 0)
            ((at, _),) = [one for one in ears.told if isinstance(one[1], RealtimeReconnectedEvent)]
            assert 7200 - 60 <= at < 7200
            await asyncio.sleep(30)
            assert len(service.sessions) == 2
            assert model.connected

    run_virtual(run(), grace=0.0)


def test_a_close_for_idleness_is_no_wrong_of_ours():
    async def run():
        faults = [Fault(Close(1007, IDLE_REASON), at=2.0)]
        async with session({"faults": faults}) as (model, ears, service):
            await asyncio.sleep(4)
            assert len(ears.of(RealtimeReconnectedEvent)) == 1
            assert model.connected
            assert len(service.sessions) == 2

    run_virtual(run(), grace=0.0)


@pytest.mark.parametrize("idle", ["silence", "roll_over"])
def test_a_turn_ends_although_the_microphone_was_switched_off_in_it(idle):
    async def run():
        async with session(idle=idle) as (model, ears, _service):
            for _ in range(30):
                model.send_audio(speech(0.02))
                await asyncio.sleep(0.02)
            await asyncio.sleep(5)
            (ended,) = ears.of(UserTurnEnded)
            (stopped,) = ears.of(SpeechStopped)
            assert stopped.position / 16000 == pytest.approx(0.6, abs=0.35)
            assert ended.reply_follows
            assert [t.text for t in ears.of(UserTranscript) if t.final] == ["what time is it"]
            assert ears.of(ReplyAudio)
            # And then it is quiet.
            before = len(ears.told)
            await asyncio.sleep(10)
            assert len(ears.told) == before

    run_virtual(run(), grace=0.0)


def test_nothing_is_sent_while_there_is_no_connection():
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


class Timeless:
    """A connection of which nothing comes."""

    def __init__(self):
        self.sent = []
        self.receive = None

    async def run(self, receive):
        self.receive = receive
        await asyncio.Event().wait()

    def transmit(self, command):
        self.sent.append(command)


@pytest.mark.parametrize("idle", ["silence", "roll_over"])
def test_a_turn_that_never_ends_is_given_up(idle):
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
        line = Timeless()
        watched = watcher.watch(line)
        watcher.start()
        task = asyncio.create_task(watched.run(silence.append))
        await asyncio.sleep(0)
        line.receive(SessionStarted())
        line.receive(SpeechStarted("u"))
        began = loop.time()
        await asyncio.sleep(100)
        in_turn = MAX_TURN_SILENCE_S / SILENCE_CHUNK_S
        more = 0 if idle == "roll_over" else (100 - MAX_TURN_SILENCE_S) / 20
        assert len(line.sent) == pytest.approx(in_turn + more, abs=2)
        # The next turn is waited for anew.
        line.receive(UserTurnEnded("u"))
        line.receive(SpeechStarted("v"))
        before = len(line.sent)
        await asyncio.sleep(1)
        assert len(line.sent) - before == pytest.approx(10, abs=3)
        assert loop.time() - began == pytest.approx(101)
        watcher.close()
        task.cancel()
        await asyncio.wait([task])
        assert not pending_timers()

    run_virtual(run(), grace=0.0)
