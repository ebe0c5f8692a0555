"""`CallStory` and what is explained of it, from made events, without a recording."""

import json

import pytest

from duologue.observe._call_story import CallStory, StoryReader
from duologue.observe.call import read_call
from duologue.observe.explanations import explain, explain_story


def event(kind, t, **fields):
    return {"type": kind, "t": t, "at": 0.0, **fields}


def person(start, end, text, turn_id="t", *, silence_ms=300.0, **fields):
    return [
        event("UserTurnStartedEvent", start + 0.1, turn_id=turn_id, speech_ms=100.0),
        event(
            "UserTurnEndedEvent",
            end + silence_ms / 1000,
            turn_id=turn_id,
            text=text,
            silence_ms=silence_ms,
            **fields,
        ),
    ]


def kinds(events, seconds=20.0, **options):
    lines = explain_story(CallStory.read(events), seconds, **options)
    return {line.kind: line.text for line in reversed(lines)}


def test_turns_lie_where_the_speech_was():
    story = CallStory.read(
        [
            *person(1.0, 2.0, None),
            event("UserTranscriptEvent", 2.6, turn_id="t", text="hello", final=True),
            event("AgentTranscriptEvent", 2.7, speech_id="s", text="Hi ", final=False),
            event("AgentTranscriptEvent", 2.8, speech_id="s", text="there you", final=False),
            event("AgentTurnStartedEvent", 3.0, speech_id="s"),
            event(
                "TurnMetricsEvent",
                3.0,
                speech_id="s",
                endpoint_ms=300,
                transcript_ms=None,
                first_text_ms=700.5,
                first_audio_ms=900,
                first_played_ms=1000,
            ),
            event("InterruptionEvent", 4.0, speech_id="s", heard_text="Hi ", played_ms=1000),
            event("AgentTranscriptEvent", 4.0, speech_id="s", text="Hi ", final=True),
            event("AgentTurnEndedEvent", 4.0, speech_id="s", interrupted=True),
            event("UsageEvent", 4.1, input={"audio": 10, "cached": 4}, output={"text": 3}),
            event("SomethingNewer", 4.2),
        ]
    )
    (turn,), (reply,) = story.person, story.agent
    assert (turn.start, turn.end) == (pytest.approx(1.0), pytest.approx(2.0))
    assert turn.text == "hello"
    assert (reply.start, reply.end, reply.interrupted) == (3.0, 4.0, True)
    assert (reply.heard, reply.unheard) == ("Hi ", "there you")
    assert reply.latency_ms == {
        "endpoint": 300,
        "first_text": 700.5,
        "first_audio": 900,
        "first_played": 1000,
    }
    assert story.tokens == {"input": 10, "output": 3}
    assert (story.latencies_ms, story.interruptions) == ([1000], 1)


def test_tools_holds_and_reconnects_have_their_ends():
    story = CallStory.read(
        [
            event("ToolStartEvent", 1.0, call_id="c", name="f", arguments="{}"),
            event("ToolEndEvent", 2.0, call_id="c", status="failed", output="oh"),
            event("ToolEndEvent", 2.0, call_id="unknown", status="done", output=""),
            event("SpeechHeldEvent", 3.0, speech_id="s"),
            event("SpeechResumedEvent", 3.5, speech_id="s", held_ms=500),
            event("RealtimeReconnectingEvent", 5.0, reason="lost", attempt=1),
            event("RealtimeReconnectingEvent", 5.2, reason="lost", attempt=2),
            event("RealtimeReconnectedEvent", 6.0, outcome="fresh", lost_ms=120),
            event("RealtimeReconnectedEvent", 6.1, outcome="fresh", lost_ms=0),
            event("UserTurnEndedEvent", 7.0, turn_id="unknown", text="x"),
            event("RealtimeDisconnectedEvent", 8.0, reason="bye", clean=True),
        ]
    )
    (tool,), (hold,), (reconnect,) = story.tools, story.holds, story.reconnects
    assert (tool.start, tool.end, tool.status, tool.output) == (1.0, 2.0, "failed", "oh")
    assert (hold.start, hold.end, hold.resumed) == (3.0, 3.5, True)
    assert (reconnect.end, reconnect.attempts, reconnect.lost_ms) == (6.0, 2, 120)
    assert (story.ended_at, story.end_reason, story.ended_clean) == (8.0, "bye", True)


def test_a_cough_and_a_hold_are_told_without_blame():
    found = kinds(
        [
            event("AgentTurnStartedEvent", 0.5, speech_id="s"),
            event("SpeechHeldEvent", 1.2, speech_id="s"),
            *person(1.0, 1.4, None, empty=True),
            event("SpeechResumedEvent", 1.7, speech_id="s", held_ms=500),
            event("AgentTurnEndedEvent", 5.0, speech_id="s", interrupted=False),
        ]
    )
    assert set(found) == {"noise", "held"}
    assert "stopped for 0.5 s" in found["held"]


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        (person(3.0, 4.0, "and then", "u"), "went on speaking after"),
        ([event("ErrorEvent", 3.0, source="model", message="refused")], "model failed (refused)"),
        ([event("RealtimeReconnectingEvent", 2.5, reason="gone", attempt=1)], "was not replaced"),
        (
            [
                event("RealtimeReconnectingEvent", 2.5, reason="gone", attempt=1),
                event("RealtimeReconnectedEvent", 6.0, outcome="restored", lost_ms=0),
            ],
            "was being replaced (gone)",
        ),
        (
            [event("ToolStartEvent", 2.5, call_id="c", name="f", arguments="")],
            "f was still running",
        ),
        (
            [event("AgentTranscriptEvent", 2.6, speech_id="s", text="I", final=False)],
            "one was made",
        ),
        ([event("RealtimeDisconnectedEvent", 3.0, reason="bye", clean=True)], "session ended"),
        ([], "the model sent none in"),
    ],
)
def test_a_turn_without_a_reply_has_its_reason(events, reason):
    assert reason in kinds(person(1.0, 2.0, "hello") + events)["no-reply"]


def test_a_turn_without_words_may_not_have_been_understood():
    assert "has no transcript" in kinds(person(1.0, 2.0, None))["no-reply"]


@pytest.mark.parametrize(
    ("times", "text"),
    [
        ((1800, 1900, 1950, 1960, 2000), "deciding that the person had finished took 1.8 s"),
        ((300, 1700, 1800, 1850, 1900), "the transcript took 1.4 s"),
        ((300, None, 500, 1900, 1950), "making the first audio took 1.4 s"),
        ((300, None, 400, 500, 1900), "the audio waited 1.4 s"),
    ],
)
def test_the_longest_part_of_a_late_reply_is_named(times, text):
    names = ("endpoint_ms", "transcript_ms", "first_text_ms", "first_audio_ms", "first_played_ms")
    found = kinds(
        [
            event("AgentTurnStartedEvent", 5.0, speech_id="s"),
            event("TurnMetricsEvent", 5.0, speech_id="s", **dict(zip(names, times, strict=True))),
            event("AgentTurnEndedEvent", 6.0, speech_id="s", interrupted=False),
        ]
    )
    assert text in found["late"]


def test_a_reconnect_explains_a_late_reply():
    found = kinds(
        [
            event("RealtimeReconnectingEvent", 3.5, reason="gone", attempt=1),
            event("RealtimeReconnectedEvent", 4.5, outcome="replayed", lost_ms=0),
            event("AgentTurnStartedEvent", 5.0, speech_id="s"),
            event("TurnMetricsEvent", 5.0, speech_id="s", first_text_ms=1900, first_played_ms=2000),
            event("AgentTurnEndedEvent", 6.0, speech_id="s", interrupted=False),
        ]
    )
    assert "the connection was replaced meanwhile (gone)" in found["late"]


def test_a_cut_by_a_sound_is_told_as_such():
    found = kinds(
        [
            event("AgentTurnStartedEvent", 0.5, speech_id="s"),
            event("UserTurnStartedEvent", 1.1, turn_id="t", speech_ms=100.0),
            event("InterruptionEvent", 1.4, speech_id="s", heard_text="", played_ms=900),
        ]
    )
    assert "no transcript" in found["cut"]


def test_an_echo_of_chinese_is_found_by_characters():
    found = kinds(
        [
            event("AgentTranscriptEvent", 0.4, speech_id="s", text="火车九点开", final=False),
            event("AgentTurnStartedEvent", 0.5, speech_id="s"),
            *person(1.0, 2.0, "火车九点"),
            event("InterruptionEvent", 1.4, speech_id="s", heard_text="火车", played_ms=900),
        ]
    )
    assert "its own voice" in found["echo"]


def test_an_end_that_is_missing_or_an_error_is_told():
    assert "was killed" in kinds([], is_whole=False)["end"]
    lost = [event("RealtimeDisconnectedEvent", 3.0, reason="gave up", clean=False)]
    assert "gave up" in kinds(lost)["end"]


def test_words_that_are_late_and_an_old_version_are_read():
    story = CallStory.read(
        [
            event("AgentTranscriptEvent", 1.0, speech_id="s", text="Well, I", final=False),
            event("AgentTranscriptEvent", 2.0, speech_id="s", text="Well", final=True),
            event("AgentTranscriptEvent", 1.0, speech_id="u", text="other", final=False),
            event("AgentTranscriptEvent", 2.0, speech_id="u", text="words", final=True),
            event("UserTurnStartedEvent", 3.0, turn_id="t", speech_ms=None),
            event("UserTranscriptEvent", 3.5, turn_id="none", text="lost", final=True),
            event("InterruptionEvent", 4.0, speech_id=None),
            event("UsageEvent", 4.1, input=None, output={"text": 3}),
            event("TurnMetricsEvent", 4.2, speech_id="s", endpoint_ms=True),
        ]
    )
    assert [turn.unheard for turn in story.agent] == [", I", ""]
    assert [turn.start for turn in story.person] == [3.0]
    assert story.tokens == {"output": 3}


def test_a_reply_that_was_not_heard_at_all_has_only_unheard_words():
    story = CallStory.read(
        [event("AgentTranscriptEvent", 1.0, speech_id="s", text="I", final=False)]
    )
    assert (story.agent[0].start, story.agent[0].unheard) == (None, "I")
    assert explain_story(story, 5.0) == []


def test_a_turn_that_has_not_ended_is_not_judged():
    events = [event("UserTurnStartedEvent", 1.0, turn_id="t", speech_ms=0.0)]
    assert explain_story(CallStory.read(events), 5.0) == []


def test_a_tool_that_took_little_is_not_blamed_and_long_words_are_shortened():
    found = kinds(
        [
            event("ToolStartEvent", 3.1, call_id="c", name="f", arguments="{}"),
            event("ToolEndEvent", 3.2, call_id="c", name="f", status="done", output=""),
            event("AgentTurnStartedEvent", 5.0, speech_id="s"),
            event("TurnMetricsEvent", 5.0, speech_id="s", first_text_ms=1900, first_played_ms=2000),
            *person(5.5, 6.5, "word " * 40),
            event("InterruptionEvent", 6.0, speech_id="s", heard_text="", played_ms=900),
            event("RealtimeReconnectingEvent", 9.0, reason="gone", attempt=1),
        ]
    )
    assert "the model took 1.9 s" in found["late"]
    assert found["cut"].endswith('wo...".')
    assert "not replaced" in found["reconnect"]


def test_the_program_cut_it_where_the_person_was_silent_or_had_long_finished():
    speech = [
        event("AgentTurnStartedEvent", 3.0, speech_id="s"),
        event("InterruptionEvent", 9.0, speech_id="s", heard_text="", played_ms=6000),
    ]
    assert "by the program" in kinds(speech)["cut"]
    earlier = [*person(1.0, 2.0, "hello"), *speech, *person(10.0, 11.0, "later", "u")]
    assert "by the program" in kinds(earlier)["cut"]


def test_all_of_a_recorded_call_is_explained(tmp_path):
    lost = event("RealtimeDisconnectedEvent", 2.0, reason="x", clean=False)
    (tmp_path / "events.jsonl").write_text(json.dumps(lost))
    (line,) = explain(read_call(tmp_path))
    assert (line.at, line.kind) == (2.0, "end")


def test_a_story_with_a_bound_keeps_its_newest_entries():
    reader = StoryReader(max_entries=2)
    for number in range(4):
        at = 10.0 * number
        for one in [
            *person(at + 1.0, at + 2.0, f"turn {number}", f"t{number}"),
            event("ToolStartEvent", at + 3.0, call_id=f"c{number}", name="f", arguments=""),
            event("AgentTurnStartedEvent", at + 4.0, speech_id=f"s{number}"),
            event("ErrorEvent", at + 5.0, source="model", message=f"error {number}"),
        ]:
            reader.read(one)
    reader.read(event("ToolEndEvent", 50.0, call_id="c0", status="done", output=""))
    reader.read(event("ToolEndEvent", 50.0, call_id="c3", status="done", output=""))
    story = reader.story
    assert [turn.text for turn in story.person] == ["turn 2", "turn 3"]
    assert [turn.id for turn in story.agent] == ["s2", "s3"]
    assert [tool.status for tool in story.tools] == ["running", "done"]
    assert [problem.message for problem in story.problems] == ["error 2", "error 3"]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"ended_by": "vote", "votes": [0.2, 0.9]}, "vote of 0.90 after 0.20 had ended"),
        ({"ended_by": "program"}, "the program had ended"),
        ({"ended_by": "silence", "votes": [0.1]}, "the turn detector voted 0.10, had ended"),
        ({"ended_by": "silence"}, "silence had ended"),
    ],
)
def test_a_cut_by_the_same_turn_says_what_had_ended_it(fields, text):
    found = kinds(
        [
            *person(1.0, 2.0, "I would like", "a", **fields),
            event("AgentTurnStartedEvent", 2.5, speech_id="s"),
            *person(2.8, 3.6, "a room", "b"),
            event("InterruptionEvent", 3.1, speech_id="s", heard_text="", cause="person"),
            event("AgentTurnEndedEvent", 3.1, speech_id="s", interrupted=True),
        ]
    )
    assert text in found["cut"]


def test_a_model_that_stops_itself_is_named():
    found = kinds(
        [
            event("AgentTurnStartedEvent", 2.5, speech_id="s"),
            event("InterruptionEvent", 3.1, speech_id="s", heard_text="", cause="model"),
            event("AgentTurnEndedEvent", 3.1, speech_id="s", interrupted=True),
        ]
    )
    assert "the model stopped" in found["cut"]


def test_a_reply_may_still_come_while_the_call_goes_on():
    events = person(1.0, 2.0, "hello")
    assert "no-reply" not in kinds(events, 4.0, is_whole=False, goes_on=True)
    assert "no-reply" in kinds(events, 20.0, is_whole=False, goes_on=True)


def test_a_refused_request_is_why_nothing_was_said():
    refused = event("ErrorEvent", 3.0, source="request", message="too fast")
    assert (
        "the model refused to make one (too fast)"
        in kinds([*person(1.0, 2.0, "hello"), refused])["no-reply"]
    )
