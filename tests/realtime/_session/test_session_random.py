"""Sessions in which anything happens in any order continue, and end clean."""

import asyncio
import random

import numpy as np
import pytest
from fake_connection import RATE, Model, living

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


def output(dice, asked):
    """Return some output of a model."""
    pick = dice.choice
    sound = AudioFrame(np.full(pick((0, 20, RATE)), 500, np.int16), RATE)
    return pick(
        (
            SpeechStarted(pick(TURNS), pick((None, 1.0)), pick((None, 0, 500))),
            SpeechStopped(pick(TURNS), None, pick((None, 800))),
            UserTranscript(pick(TURNS), pick(("", "hi", "hi there")), pick((True, False))),
            UserTurnEnded(pick(TURNS), None, pick((True, False)), dice.random() < 0.2),
            ReplyStarted(pick(REPLIES), pick((None, *asked))),
            ReplyAudio(pick(REPLIES), "i", sound),
            ReplyText(pick(REPLIES), "i", "word ", planned=dice.random() < 0.2),
            ReplyDone(pick(REPLIES), pick(("completed", "cancelled", "failed"))),
            ReplyRefused(pick(("", *asked)), "code", "No.", pick((True, False))),
            ReplyInterrupted(pick(REPLIES)),
            ToolCall(pick(REPLIES), pick(CALLS), "look", "{}"),
            ToolCallsCancelled(CALLS[:1]),
            GoAway(pick((0.0, 3.0, 60.0))),
            Resumable(pick((True, False))),
            Alive(),
            ProviderError(pick((ErrorKind.RETRY, ErrorKind.UNKNOWN)), "code", "Oh."),
        )
    )


async def step(model, dice, asked, *, manual):
    """Let one thing happen."""
    match dice.choices(
        ("tell", "sound", "interrupt", "ask", "say", "result", "end", "lose", "roll", "wait"),
        (45, 15, 5, 5, 4, 4, 2, 4, 2, 14),
    )[0]:
        case "tell" if model.line.tell is not None and not model.line.ended.is_set():
            try:
                model.line.tell(output(dice, asked))
            except SessionError as error:
                model.line.lose(error)
        case "sound":
            level = dice.choice((0, 3000))
            for _ in range(dice.randint(1, 40)):
                await asyncio.sleep(0.02)
                model.send_audio(AudioFrame(np.full(RATE // 50, level, np.int16), RATE))
        case "interrupt":
            model.interrupt()
        case "ask" | "say" as what:
            asked.append(f"q{len(asked)}")
            if what == "ask":
                model.request_reply(asked[-1])
            else:
                model.say(asked[-1], "hello")
        case "result":
            model.send_tool_result(dice.choice(CALLS), "look", "42", failed=False)
        case "end" if manual:
            model.end_turn(reply=dice.random() < 0.8)
        case "lose":
            model.line.lose()
        case "roll":
            model.roll_over(dice.choice((None, 0.0, 3.0)))
        case "wait":
            await asyncio.sleep(dice.choice((0, 0.01, 0.5, 3, 10, 40)))


@pytest.mark.parametrize("seed", range(20))
def test_a_session_continues_whatever_happens(seed):
    dice = random.Random(seed)  # noqa: S311 - a test's
    abilities = {name: dice.choice(values) for name, values in ABILITIES.items()}
    silence_s = dice.choice((None, 3.0, 25.0))
    policy = ReconnectPolicy(
        base_s=0.01, cap_s=0.1, max_attempts=1000, keep_s=2.0, silence_s=silence_s
    )
    plan = {"expires_in": dice.choice((None, 5.0, 40.0)), "answers": dice.choice((0.0, 0.3))}

    async def main():
        model, asked = Model([plan], policy, **abilities), []
        async with living(model) as ear:
            for _ in range(100):
                await step(model, dice, asked, manual=abilities["manual_turns"])
            assert model.alive
            assert not ear.of(RealtimeDisconnectedEvent)
        assert len(ear.of(RealtimeDisconnectedEvent)) == 1

    run_virtual(main(), grace=0.0)
