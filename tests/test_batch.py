"""Conversations with many recordings: the rows of their turns."""

import numpy as np
import pytest
import soundfile

from duologue import Agent
from duologue.batch import Row, TurnCollector, run_batch
from duologue.errors import ConfigError, SessionError
from duologue.events import events
from duologue.testing import At, Reply, ScriptedRealtime, ToolUse, virtual_time


def collect(*happened, measured=True):
    turns = TurnCollector(measured=measured)
    for event in happened:
        turns.accept(event)
    return turns


def started(turn):
    return events.UserTurnStartedEvent("person", turn)


def ended(turn, text=None, *, empty=False):
    return events.UserTurnEndedEvent("person", text, empty, turn)


def transcript(turn, text, *, final=True):
    return events.UserTranscriptEvent(text, final, "person", turn)


def speaks(speech):
    return events.AgentTurnStartedEvent(speech)


def spoken(speech, text, *, final=True):
    return events.AgentTranscriptEvent(text, final, speech)


def metrics(speech, played):
    return events.TurnMetricsEvent(speech, 200.0, 210.0, 300.0, 390.0, played)


def interruption(speech):
    return events.InterruptionEvent(1, speech, 900, "We", "estimated")


def test_a_turn_is_a_row_with_its_transcript_reply_and_latencies():
    rows = collect(
        started("1"),
        transcript("1", "When", final=False),
        ended("1", "When?"),
        metrics("a", 400.0),
        speaks("a"),
        spoken("a", "At", final=False),
        events.UsageEvent({"audio": 10, "cached": 4}, {"text": 3}),
        spoken("a", "At nine."),
        events.AgentTurnEndedEvent("a", False),
    ).rows("f.wav")
    assert rows == [
        Row(
            file="f.wav",
            turn=1,
            user="When?",
            agent="At nine.",
            endpoint_ms=200.0,
            transcript_ms=210.0,
            first_text_ms=300.0,
            first_audio_ms=390.0,
            first_played_ms=400.0,
            input_tokens=10,
            output_tokens=3,
        )
    ]


def test_without_meaning_latencies_are_left_out():
    turns = collect(started("1"), metrics("a", 400.0), speaks("a"), measured=False)
    assert turns.rows("f")[0].first_played_ms is None


def test_what_comes_late_is_put_into_its_own_turn():
    first, second = collect(
        started("1"),
        ended("1"),
        speaks("a"),
        started("2"),
        interruption("a"),
        interruption(None),
        spoken("a", "We"),
        transcript("1", "When?"),
        ended("2", "Stop."),
        spoken("b", ""),
        speaks("b"),
        spoken("b", "Yes."),
    ).rows("f")
    assert (first.turn, first.turns, first.user, first.agent) == (1, 2, "When?", "We")
    assert first.interrupted
    assert (second.turn, second.user, second.agent) == (2, "Stop.", "Yes.")
    assert not second.interrupted


def test_a_greeting_is_turn_0_and_a_cough_is_none():
    greeting, question = collect(
        speaks("a"),
        spoken("a", "Good morning."),
        started("1"),
        ended("1", empty=True),
        started("2"),
        transcript("2", "When?"),
        events.ToolStartEvent("c", "look", "{}"),
        speaks("b"),
        spoken("b", "Just a moment."),
        speaks("c"),
        spoken("c", "At nine."),
    ).rows("f")
    assert (greeting.turn, greeting.turns, greeting.agent) == (0, 2, "Good morning.")
    assert (question.turn, question.tools) == (1, 1)
    assert question.agent == "Just a moment. At nine."


def test_what_fails_in_a_turn_is_a_warning_and_what_ends_the_conversation_an_error():
    turns = collect(
        started("1"),
        events.ErrorEvent("tool", "no database"),
        started("2"),
        events.RealtimeDisconnectedEvent("the model is gone", clean=False),
    )
    first, second = turns.rows("f")
    assert (first.warnings, first.error) == ("tool: no database", "")
    assert (second.warnings, second.error) == ("", "the model is gone")
    assert turns.rows("f", "stopped")[-1].error == "stopped"


def test_a_conversation_without_a_turn_is_a_row_that_says_so():
    (row,) = collect(events.ErrorEvent("edge", "noise")).rows("f")
    assert row == Row(
        file="f", turn=0, warnings="edge: noise", error="no turn of the person was found"
    )
    assert collect().rows("f", "no such file")[0].error == "no such file"


@pytest.fixture
def recordings(tmp_path):
    """Write three recordings and a file that is none; return their paths."""
    tone = 0.4 * np.sin(2 * np.pi * 300 * np.arange(8000) / 16000)
    paths = [tmp_path / name for name in ("a.wav", "b.wav", "c.wav", "text.wav")]
    for path in paths[:3]:
        soundfile.write(path, tone, 16000)
    paths[3].write_text("this is not audio")
    return paths


def price() -> int:
    """Return the price."""
    return 90


def scripted(edge):
    model = ScriptedRealtime([Reply(tools=[ToolUse("price")]), "Ninety."], transcripts=["What?"])
    return Agent(edge=edge, llm=model, tools=[price])


@virtual_time
async def test_each_file_is_a_conversation_and_a_failure_is_a_row(recordings):
    made, seen = [], []

    async def make_agent(edge):
        made.append(edge)
        match len(made):
            case 2:
                return Agent(
                    edge=edge, llm=ScriptedRealtime(at=[At(0.2, SessionError("no credit"))])
                )
            case 3:
                return None
        return scripted(edge)

    rows = await run_batch(recordings, make_agent, on_rows=seen.append)
    assert [(row.file, row.turn) for row in rows] == [
        (str(path), turn) for path, turn in zip(recordings, (1, 1, 0, 0), strict=True)
    ]
    good, failed, none, text = rows
    assert (good.user, good.agent, good.tools, good.error) == ("What?", "Ninety.", 1, "")
    assert good.first_played_ms > 0
    assert "no credit" in failed.error
    assert none.error == "make_agent must return an Agent, not None"
    assert "it is not a readable audio file" in text.error
    assert seen == [[row] for row in rows]


@virtual_time
async def test_jobs_run_at_once_and_rows_keep_the_order_of_the_files(recordings):
    import asyncio

    now = asyncio.get_running_loop().time
    began = now()
    alone = await run_batch(recordings[:3], scripted)
    one_by_one = now() - began
    began = now()
    together = await run_batch(recordings[:3], scripted, jobs=3)
    assert now() - began < one_by_one / 2
    assert [row.file for row in together] == [row.file for row in alone]


@virtual_time
async def test_an_error_of_on_rows_ends_the_run(recordings):
    def full(rows):
        raise ConfigError("disk full")

    with pytest.raises(ConfigError, match="disk full"):
        await run_batch(recordings, scripted, jobs=2, on_rows=full)


async def test_jobs_must_be_a_number_above_0():
    with pytest.raises(ConfigError, match="jobs must be 1 or more, not 0"):
        await run_batch([], scripted, jobs=0)
