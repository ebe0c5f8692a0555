"""Sessions in which anything happens in any order continue, and end clean."""

import asyncio
import random

import numpy as np
import pytest
from fake_connection import RATE, FakeModel, live_session

from duologue.audio import AudioFrame
from duologue.errors import ErrorKind, SessionError
from duologue.events import RealtimeDisconnectedEvent
from duologue.realtime.outputs import (
    Alive,
    GoAway,
    ProviderError,
    ReplyAudio,
    ReplyDone,
    ReplyInterrupted,
    ReplyRefused,
    ReplyStarted,
    ReplyText,
    Resumable,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    ToolCallsCancelled,
    UserTranscript,
    UserTurnEnded,
)
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.testing import run_virtual

REPLIES, TURNS, CALLS = ("r1", "r2", "r3"), ("u1", "u2", "u3"), ("c1", "c2")
ABILITIES = {
    "truncation": ("native", "as_text", "none"),
    "confirms_cancel": (True, False),
    "defers_requests": (False, True),
    "speech_detection": ("server", "local", "none"),
    "user_transcripts": ("partial", "final", "none"),
    "manual_turns": (True, False),
    "turn_reply": ("requested", "automatic"),
    "tool_reply": ("requested", "automatic"),
    "may_ignore": (True, False),
    "answers_pings": (True, False),
}


def output(rng, requested):
    """Return some output of a model."""
    pick = rng.choice
    audio_frame = AudioFrame(np.full(pick((0, 20, RATE)), 500, np.int16), RATE)
    return pick(
        (
            SpeechStarted(pick(TURNS), pick((None, 1.0)), pick((None, 0, 500))),
            SpeechStopped(pick(TURNS), None, pick((None, 800))),
            UserTranscript(pick(TURNS), pick(("", "hi", "hi there")), pick((True, False))),
            UserTurnEnded(pick(TURNS), None, pick((True, False)), rng.random() < 0.2),
            ReplyStarted(pick(REPLIES), pick((None, *requested))),
            ReplyAudio(pick(REPLIES), "i", audio_frame),
            ReplyText(pick(REPLIES), "i", "word ", planned=rng.random() < 0.2),
            ReplyDone(pick(REPLIES), pick(("completed", "cancelled", "failed"))),
            ReplyRefused(pick(("", *requested)), "code", "No.", pick((True, False))),
            ReplyInterrupted(pick(REPLIES)),
            ToolCall(pick(REPLIES), pick(CALLS), "look", "{}"),
            ToolCallsCancelled(CALLS[:1]),
            GoAway(pick((0.0, 3.0, 60.0))),
            Resumable(pick((True, False))),
            Alive(),
            ProviderError(pick((ErrorKind.RETRY, ErrorKind.UNKNOWN)), "code", "Oh."),
        )
    )


async def step(model, rng, requested, *, manual):
    """Let one thing happen."""
    match rng.choices(
        ("tell", "sound", "interrupt", "ask", "say", "result", "end", "lose", "roll", "wait"),
        (45, 15, 5, 5, 4, 4, 2, 4, 2, 14),
    )[0]:
        case "tell" if model.latest.emit is not None and not model.latest.ended.is_set():
            try:
                model.latest.emit(output(rng, requested))
            except SessionError as error:
                model.latest.lose(error)
        case "sound":
            level = rng.choice((0, 3000))
            for _ in range(rng.randint(1, 40)):
                await asyncio.sleep(0.02)
                model.send_audio(AudioFrame(np.full(RATE // 50, level, np.int16), RATE))
        case "interrupt":
            model.interrupt()
        case "ask" | "say" as what:
            requested.append(f"q{len(requested)}")
            if what == "ask":
                model.request_reply(requested[-1])
            else:
                model.say(requested[-1], "hello")
        case "result":
            model.send_tool_result(rng.choice(CALLS), "look", "42", failed=False)
        case "end" if manual:
            model.end_turn(reply=rng.random() < 0.8)
        case "lose":
            model.latest.lose()
        case "roll":
            model.roll_over(rng.choice((None, 0.0, 3.0)))
        case "wait":
            await asyncio.sleep(rng.choice((0, 0.01, 0.5, 3, 10, 40)))


@pytest.mark.parametrize("seed", range(20))
def test_a_session_continues_whatever_happens(seed):
    rng = random.Random(seed)  # noqa: S311 - a test's
    abilities = {name: rng.choice(values) for name, values in ABILITIES.items()}
    silence_s = rng.choice((None, 3.0, 25.0))
    policy = ReconnectPolicy(
        base_s=0.01, cap_s=0.1, max_attempts=1000, keep_s=2.0, silence_s=silence_s
    )
    plan = {"expires_in": rng.choice((None, 5.0, 40.0)), "starts_after": rng.choice((0.0, 0.3))}

    async def main():
        model, requested = FakeModel([plan], policy, **abilities), []
        async with live_session(model) as observer:
            for _ in range(100):
                await step(model, rng, requested, manual=abilities["manual_turns"])
            assert model.alive
            assert not observer.of(RealtimeDisconnectedEvent)
        assert len(observer.of(RealtimeDisconnectedEvent)) == 1

    run_virtual(main(), grace=0.0)
