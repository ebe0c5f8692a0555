"""Connections in a test's hands, a model that makes them, and an observer."""

import asyncio
import random
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np

from duologue.audio import AudioFrame
from duologue.errors import ErrorKind, SessionError
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import SendAudio
from duologue.realtime.outputs import SessionStarted
from duologue.realtime.realtime import Realtime
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.testing import SCRIPTED_CAPABILITIES

RATE = 1000
LOST = SessionError("the connection broke", code="1006", kind=ErrorKind.RECYCLE)
FATAL = SessionError("wrong key", code="invalid_api_key", kind=ErrorKind.FATAL)


class FakeConnection:
    """One connection in the test's hands, live after ``starts_after`` seconds.

    Without ``begins`` it ends then, before it is live.
    """

    def __init__(
        self,
        setup,
        starts_after=0.0,
        fails=None,
        expires_in=None,
        restored=False,
        confirms=True,
        begins=True,
    ):
        self.setup = setup
        self.starts_after = starts_after
        self.begins = begins
        self.fails = fails
        self.started = SessionStarted({}, expires_in, restored, confirms)
        self.commands = []
        self.ended = asyncio.Event()
        self.failure = None
        self.emit = None
        self.closed = False

    async def run(self, receive):
        self.emit = receive
        try:
            if self.starts_after:
                await asyncio.sleep(self.starts_after)
            if self.fails is not None:
                raise self.fails
            if not self.begins:
                return
            receive(self.started)
            await self.ended.wait()
            if self.failure is not None:
                raise self.failure
        finally:
            self.closed = True

    def transmit(self, command):
        self.commands.append(command)

    def lose(self, failure=LOST):
        self.failure = failure
        self.ended.set()

    @property
    def received(self):
        frames = [c.frame.samples for c in self.commands if isinstance(c, SendAudio)]
        return np.concatenate([np.zeros(0, np.int16), *frames])

    def sent(self, kind):
        return [c for c in self.commands if isinstance(c, kind)]


class FakeModel(Realtime):
    """Makes connections by ``plans``, each the options of one; the last plan is repeated."""

    def __init__(self, plans=(), policy=None, vad=None, **abilities):
        profile = replace(
            SCRIPTED_CAPABILITIES,
            provider="test",
            model="m",
            input_rate=RATE,
            output_rate=RATE,
            **{"user_transcripts": "final", **abilities},
        )
        super().__init__(profile, reconnect=policy or ReconnectPolicy(), vad=vad)
        self._session.connections._rng = random.Random(1)  # noqa: S311
        self.plans = list(plans) or [{}]
        self.opened = []
        self.at = []

    def open(self, setup):
        plan = self.plans.pop(0) if len(self.plans) > 1 else self.plans[0]
        self.opened.append(FakeConnection(setup, **plan))
        self.at.append(self.clock.now())
        return self.opened[-1]

    @property
    def latest(self):
        return self.opened[-1]


class FakeObserver:
    def __init__(self):
        self.reported = []
        self.items = ()
        self.spoken = {}
        self.lost = []
        self.truncations = []

    def history(self):
        return self.items

    def connected(self, event):
        self.reported.append(event)

    reconnecting = reconnected = connected

    def disconnected(self, event):
        self.reported.append(event)

    def output(self, output, epoch):
        self.reported.append(output)

    def on_interrupt(self, epoch):
        return self.truncations

    def reply_ended(self, request_id, error):
        self.reported.append((request_id, error))

    def late_transcript(self, words):
        pass

    def reply_skipped(self, epoch):
        self.reported.append(("nothing follows", epoch))

    def spoken_text(self, reply_id):
        return self.spoken.get(reply_id)

    def reply_lost(self, reply_id, request_id):
        self.lost.append((reply_id, request_id))

    def turns_replayed(self, item_ids):
        self.reported.append(tuple(item_ids))

    def of(self, kind):
        return [t for t in self.reported if isinstance(t, kind)]


@asynccontextmanager
async def live_session(model, history=()):
    observer = FakeObserver()
    observer.items = history
    task = asyncio.create_task(model.run(SessionSetup("be kind", (), history), observer))
    await model.ready()
    try:
        yield observer
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert all(connection.closed for connection in model.opened)
        assert len([t for t in asyncio.all_tasks() if t is not asyncio.current_task()]) == 0


def audio_frame(numbers):
    return AudioFrame(np.asarray(numbers, np.int16), RATE)


async def wait_reconnected(model, count=2):
    while len(model.opened) < count or not model.connected:
        await asyncio.sleep(0.01)
