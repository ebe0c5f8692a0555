"""`CallSpans` alone: whatever the order of events, the spans are whole."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.events import (
    AgentTranscriptEvent,
    AgentTurnEndedEvent,
    AgentTurnStartedEvent,
    ErrorEvent,
    InterruptionEvent,
    RateLimitsEvent,
    RealtimeConnectedEvent,
    RealtimeDisconnectedEvent,
    RealtimeReconnectedEvent,
    RealtimeReconnectingEvent,
    ReplyDoneEvent,
    ReplyStartedEvent,
    SpeechHeldEvent,
    SpeechResumedEvent,
    ToolEndEvent,
    ToolStartEvent,
    TurnMetricsEvent,
    UsageEvent,
    UserTranscriptEvent,
    UserTurnEndedEvent,
    UserTurnStartedEvent,
)
from duologue.observe._call_spans import (
    AddSpanEvent,
    CallSpans,
    EndSpan,
    StartSpan,
    usage_attributes,
)


def connected(provider="openai", model="gpt-realtime"):
    return RealtimeConnectedEvent("s1", {}, {"provider": provider, "model": model}, at=1000.0)


def steps_of(*events, connect=None, **options):
    spans = CallSpans("c1", **options)
    steps = []
    for event in (connect or connected(), *events):
        steps += spans.receive(event)
    return steps


def span(steps, name):
    """Return the start, the events and the end of the only span whose name starts so."""
    (start,) = [s for s in steps if isinstance(s, StartSpan) and s.name.startswith(name)]
    notes = [s for s in steps if isinstance(s, AddSpanEvent) and s.key == start.key]
    ends = [s for s in steps if isinstance(s, EndSpan) and s.key == start.key]
    return start, notes, ends[0] if ends else None


ids = st.sampled_from(["a", "b"])
EVENTS = st.one_of(
    st.builds(UserTurnStartedEvent, st.just("p"), ids, st.none() | st.floats(0, 900)),
    st.builds(
        UserTurnEndedEvent,
        st.just("p"),
        st.none() | st.just("hi"),
        st.booleans(),
        ids,
        st.none() | st.floats(0, 900),
    ),
    st.builds(UserTranscriptEvent, st.just("words"), st.booleans(), st.just("p"), ids),
    st.builds(ReplyStartedEvent, ids),
    st.builds(ReplyDoneEvent, ids, st.sampled_from(["completed", "cancelled", "failed"]), ids),
    st.builds(UsageEvent, st.just({"audio": 3}), st.just({"text": 4, "cached": 1})),
    st.builds(RateLimitsEvent, st.just(())),
    st.builds(AgentTurnStartedEvent, ids),
    st.builds(AgentTranscriptEvent, st.just("yes"), st.booleans(), ids),
    st.builds(AgentTurnEndedEvent, ids, st.booleans()),
    st.builds(SpeechHeldEvent, ids),
    st.builds(SpeechResumedEvent, ids, st.just(200)),
    st.builds(
        InterruptionEvent,
        st.just(1),
        st.none() | ids,
        st.just(5),
        st.just("y"),
        st.just("estimated"),
    ),
    st.builds(ToolStartEvent, ids, st.just("t"), st.just("{}")),
    st.builds(
        ToolEndEvent,
        ids,
        st.just("t"),
        st.sampled_from(["done", "failed"]),
        st.just("x"),
        st.just(0.1),
    ),
    st.builds(
        TurnMetricsEvent,
        ids,
        st.none() | st.just(10.0),
        st.none() | st.just(20.0),
        st.none() | st.just(30.0),
        st.none() | st.just(40.0),
        st.none() | st.just(50.0),
    ),
    st.builds(RealtimeReconnectingEvent, st.just("lost"), st.integers(0, 3)),
    st.builds(RealtimeReconnectedEvent, st.sampled_from(["restored", "fresh"])),
    st.builds(ErrorEvent, st.just("tool"), st.just("oh"), st.sampled_from(["", "bad"])),
)


def at_time(event, at):
    object.__setattr__(event, "at", at)
    return event


@settings(derandomize=True, max_examples=300)
@given(
    st.lists(EVENTS, min_size=5, max_size=60),
    st.booleans(),
    st.sampled_from(["openai", "pipeline"]),
)
def test_every_span_starts_once_under_an_open_parent_and_ends_once(events, capture, provider):
    for index, event in enumerate(events):
        at_time(event, 1001.0 + index / 10)
    last = 1001.0 + len(events) / 10
    ends = [RealtimeDisconnectedEvent("closed", clean=True)]
    ends += [AgentTurnEndedEvent(i, interrupted=False) for i in ("a", "b")]
    for event in ends:
        at_time(event, last)
    steps = steps_of(*events, *ends, connect=connected(provider), capture_content=capture)
    open_keys, seen = set(), set()
    for step in steps:
        match step:
            case StartSpan():
                assert step.key not in seen
                assert step.parent is None or step.parent in open_keys
                seen.add(step.key)
                open_keys.add(step.key)
            case AddSpanEvent():
                assert step.key in open_keys
            case EndSpan():
                open_keys.remove(step.key)
    assert not open_keys


def test_a_cough_is_an_empty_turn_and_the_turn_before_goes_on():
    steps = steps_of(
        ReplyStartedEvent("r", at=1001.0),
        AgentTurnStartedEvent("s", at=1001.2),
        UserTurnStartedEvent("p", "t", 100.0, at=1002.0),
        SpeechHeldEvent("s", at=1002.0),
        UserTurnEndedEvent("p", None, empty=True, turn_id="t", silence_ms=200.0, at=1002.6),
        SpeechResumedEvent("s", 600, at=1002.6),
        ReplyDoneEvent("r", "completed", "s", at=1003.0),
        AgentTurnEndedEvent("s", interrupted=False, at=1004.0),
    )
    turns = [s for s in steps if isinstance(s, StartSpan) and s.name == "invoke_agent agent"]
    reasons = {
        s.key: s.attributes["gen_ai.agent.invocation.end_reason"]
        for s in steps
        if isinstance(s, EndSpan) and s.key in {t.key for t in turns}
    }
    assert [reasons[t.key] for t in turns] == ["completed", "empty"]
    start, _, end = span(steps, "user_speech")
    assert (start.at, end.at) == (pytest.approx(1001.9), pytest.approx(1002.4))
    notes = [(s.name, s.attributes) for s in steps if isinstance(s, AddSpanEvent)]
    assert notes == [("duologue.held", {}), ("duologue.resumed", {"duologue.held_ms": 600})]


def test_a_pipeline_has_its_parts_as_spans():
    steps = steps_of(
        UserTurnStartedEvent("p", "t", 0.0, at=1001.0),
        UserTurnEndedEvent("p", "hi", turn_id="t", silence_ms=300.0, at=1002.3),
        ReplyStartedEvent("r", at=1002.4),
        AgentTurnStartedEvent("s", at=1003.0),
        TurnMetricsEvent("s", 300.0, 280.0, 700.0, 900.0, 1000.0, at=1003.0),
        connect=connected("pipeline", "gpt-mini"),
    )
    start, _, end = span(steps, "speech_to_text")
    assert (start.at, end.at) == (pytest.approx(1002.0), pytest.approx(1002.28))
    start, _, end = span(steps, "text_to_speech")
    assert (start.at, end.at) == (pytest.approx(1002.7), pytest.approx(1002.9))
    start, _, _ = span(steps, "chat gpt-mini")
    assert start.at == pytest.approx(1002.3)
    assert start.attributes["gen_ai.provider.name"] == "duologue"


def test_a_failed_reply_and_a_failed_tool_are_errors():
    steps = steps_of(
        ReplyStartedEvent("r", at=1001.0),
        ReplyDoneEvent("r", "failed", at=1002.0),
        ToolStartEvent("c", "look_up", '{"x": 1}', at=1002.0),
        ErrorEvent("tool look_up", "the word", "", at=1002.5),
        ToolEndEvent("c", "look_up", "failed", "the word", 1.0, at=1003.0),
    )
    assert span(steps, "realtime_inference")[2].error == "failed"
    assert span(steps, "execute_tool")[2].error == "failed"
    _, notes, _ = span(steps, "invoke_agent")
    assert [n.attributes["error.type"] for n in notes] == ["tool look_up"]
    assert "the word" not in str(steps)


def test_content_is_in_the_attributes_only_if_asked_for():
    events = (
        ToolStartEvent("c", "look_up", '{"x": 1}', at=1002.0),
        ErrorEvent("model", "the words", "bad", at=1002.5),
        ToolEndEvent("c", "look_up", "done", "the result", 1.0, at=1003.0),
    )
    steps = steps_of(*events, capture_content=True)
    start, _, end = span(steps, "execute_tool")
    assert start.attributes["gen_ai.tool.call.arguments"] == '{"x": 1}'
    assert end.attributes["gen_ai.tool.call.result"] == "the result"
    assert "the words" in str(steps)
    assert "the result" not in str(steps_of(*events))


def test_an_error_outside_of_a_turn_and_a_lost_session():
    steps = steps_of(
        ErrorEvent("store", "full", at=1001.0),
        RealtimeReconnectingEvent("lost", 1, at=1002.0),
        RealtimeReconnectingEvent("lost", 2, at=1003.0),
        RealtimeDisconnectedEvent("gave up", clean=False, at=1004.0),
    )
    assert span(steps, "duologue.error")[2].error == "store"
    assert span(steps, "realtime_reconnect")[2].error == "disconnected"
    assert span(steps, "gen_ai.client.realtime_session.ended")[2].error == "disconnected"


def test_usage_has_totals_and_parts_counted_once():
    usage = UsageEvent({"text": 5, "audio": 30, "cached": 4}, {"tokens": 9})
    assert usage_attributes(usage) == {
        "gen_ai.usage.input_tokens": 35,
        "gen_ai.usage.text.input_tokens": 5,
        "gen_ai.usage.audio.input_tokens": 30,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.output_tokens": 9,
    }
