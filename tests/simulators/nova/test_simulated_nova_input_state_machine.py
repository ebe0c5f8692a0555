"""The order of events that the service accepts: any two swapped events are detected."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("aws_sdk_bedrock_runtime", reason="the aws extra is not installed")
pytest.importorskip("h2", reason="the simulate extra is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st
from nova_client import (
    MODEL,
    NOVA_1,
    PROMPT,
    TEXT,
    audio_in,
    audio_out,
    encode_base64,
    prompt_start,
    session_start,
    tone,
    tool,
)

from duologue.simulators.nova._input_events import RefusedError, parse, split_event
from duologue.simulators.nova._input_state_machine import (
    AudioReceived,
    AudioStarted,
    HistoryMessageReceived,
    InputStateMachine,
    SystemPromptReceived,
    TextReceived,
    ToolResultReceived,
)

AUDIO_BASE64 = encode_base64(tone(0.02))


def block(name, kind="TEXT", role="USER", *, interactive=False, fills=1, text="words"):
    """Return the events of a block, each as (name of the event, fields)."""
    ids = {"promptName": PROMPT, "contentName": name}
    start = {**ids, "type": kind, "role": role, "interactive": interactive}
    match kind:
        case "TEXT":
            start["textInputConfiguration"] = TEXT
            fill = ("textInput", {**ids, "content": text})
        case "AUDIO":
            start["audioInputConfiguration"] = audio_in()
            fill = ("audioInput", {**ids, "content": AUDIO_BASE64})
        case _:
            start["toolResultInputConfiguration"] = {
                "toolUseId": name,
                "type": "TEXT",
                "textInputConfiguration": TEXT,
            }
            fill = ("toolResult", {**ids, "content": "{}"})
    return [("contentStart", start), *[fill] * fills, ("contentEnd", ids)]


BEGIN = [("sessionStart", session_start("HIGH")), ("promptStart", prompt_start([tool()]))]
SYSTEM = block("system", role="SYSTEM")
END = [("promptEnd", {"promptName": PROMPT}), ("sessionEnd", {})]


def follow(events, model=MODEL, calls=()):
    """Return the steps of the events, the number of the refused event, and its error text."""
    order = InputStateMachine(model)
    steps = []
    for call in calls:
        order.add_call(call)
    for number, (name, fields) in enumerate(events):
        try:
            step = order.accept(parse(*split_event({"event": {name: fields}})))
        except RefusedError as refusal:
            return steps, number, str(refusal)
        if step is not None:
            steps.append(step)
    return steps, None, ""


def refused(events, **options):
    return follow(events, **options)[1] is not None


@st.composite
def conversations(draw):
    """Draw everything that may be in a session, in a valid order."""
    events = [*BEGIN]
    if draw(st.booleans()):
        events += block("system", role="SYSTEM", fills=draw(st.integers(1, 2)))
    for number in range(draw(st.integers(0, 3))):
        events += block(f"history-{number}", role=["USER", "ASSISTANT"][number % 2])
    if draw(st.booleans()):
        events += block("early", interactive=True)
    audio = block("audio", "AUDIO", interactive=True, fills=0)
    inside = [audio[0]]
    audio_input = (
        "audioInput",
        {"promptName": PROMPT, "contentName": "audio", "content": AUDIO_BASE64},
    )
    for number in range(draw(st.integers(0, 3))):
        if draw(st.booleans()):
            more = block(f"text-{number}", interactive=True)
        else:
            more = block(f"tool-{number}", "TOOL", "TOOL")
        for event in more:
            inside += [audio_input] * draw(st.integers(0, 2))
            inside.append(event)
    return [*events, *inside, audio[1], *END]


CALLS = [f"tool-{number}" for number in range(3)]


def allowed(events):
    """Return whether this may be the beginning of a session, by rules written differently."""
    names = [name for name, _ in events]
    if names[:1] not in ([], ["sessionStart"]) or names.count("sessionStart") > 1:
        return False
    if names[1:] == ["sessionEnd"]:
        return True
    if names[1:2] not in ([], ["promptStart"]) or names.count("promptStart") > 1:
        return False
    inner = events[2:]
    tail = [name for name in names[2:] if name in ("promptEnd", "sessionEnd")]
    if tail not in ([], ["promptEnd"], ["promptEnd", "sessionEnd"]):
        return False
    if tail and names[-len(tail) :] != tail:
        return False
    inner = inner[: len(inner) - len(tail)]
    spans = {}
    for at, (name, fields) in enumerate(inner):
        spans.setdefault(fields["contentName"], []).append((at, name, fields))
    ranges = []
    for entries in spans.values():
        kinds = [name for _, name, _ in entries]
        whole = kinds[-1] == "contentEnd"
        body = kinds[1 : len(kinds) - whole]
        start = entries[0][2]
        if kinds[0] != "contentStart" or "contentStart" in kinds[1:] or "contentEnd" in body:
            return False
        if whole and not body and start["type"] != "AUDIO":
            return False
        if tail and not whole:
            return False
        ranges.append((entries[0][0], entries[-1][0] if whole else len(inner), start))
    for first, last, start in ranges:
        for begin, _, other in ranges:
            if other is start:
                continue
            overlaps = first < begin < last
            if overlaps and "AUDIO" not in (start["type"], other["type"]):
                return False
            if overlaps and other["type"] == "AUDIO":
                return False
    kinds = {"system": [], "history": [], "live": []}
    for first, _, start in sorted(ranges, key=lambda one: one[0]):
        if start["role"] == "SYSTEM":
            kinds["system"].append(first)
        elif start["type"] == "TEXT" and not start["interactive"]:
            kinds["history"].append((first, start["role"]))
        elif start["type"] != "TOOL":
            kinds["live"].append(first)
    live = min(kinds["live"], default=len(inner))
    history = [first for first, _ in kinds["history"]]
    if any(first > live for first in history):
        return False
    if any(first > min([live, *history]) for first in kinds["system"]):
        return False
    roles = [role for _, role in kinds["history"]]
    return roles == ["USER", "ASSISTANT"] * (len(roles) // 2) + ["USER"] * (len(roles) % 2)


@settings(max_examples=100, deadline=None)
@given(conversations())
def test_valid_order_is_accepted(events):
    assert allowed(events)
    assert follow(events, calls=CALLS)[1:] == (None, "")


@settings(max_examples=250, deadline=None)
@given(conversations(), st.data())
def test_two_swapped_events_are_detected(events, data):
    at = data.draw(st.integers(0, len(events) - 2))
    other = data.draw(st.integers(at + 1, len(events) - 1))
    events[at], events[other] = events[other], events[at]
    assert refused(events, calls=CALLS) == (not allowed(events)), events


@settings(max_examples=250, deadline=None)
@given(conversations(), st.data())
def test_missing_or_repeated_event_is_detected(events, data):
    at = data.draw(st.integers(0, len(events) - 1))
    if data.draw(st.booleans()):
        del events[at]
    else:
        events.insert(data.draw(st.integers(0, len(events))), events[at])
    assert refused(events, calls=CALLS) == (not allowed(events)), events


@settings(max_examples=100, deadline=None)
@given(st.permutations(range(6)))
def test_swapped_contents_are_detected(order):
    contents = [
        SYSTEM,
        block("h1"),
        block("h2", role="ASSISTANT"),
        block("early", interactive=True),
        block("audio", "AUDIO", interactive=True),
        block("late", interactive=True),
    ]
    events = [*BEGIN, *(event for number in order for event in contents[number]), *END]
    assert refused(events) == (not allowed(events)), order


def test_steps_of_a_session():
    history = [*block("h1", text="Hi."), *block("h2", role="ASSISTANT", text="Hello.")]
    live = block("audio", "AUDIO", interactive=True)
    text = block("text", interactive=True, fills=2, text="What? ")
    result = block("call", "TOOL", "TOOL")
    events = [*BEGIN, *SYSTEM, *history, *live[:2], *text, *result, live[2], *END]
    steps, at, error = follow(events, calls=["call"])
    assert (at, error) == (None, "")
    assert steps[2:6] == [
        SystemPromptReceived("words"),
        HistoryMessageReceived("USER", "Hi."),
        HistoryMessageReceived("ASSISTANT", "Hello."),
        AudioStarted(16000),
    ]
    assert isinstance(steps[6], AudioReceived)
    assert len(steps[6].samples) == 320
    assert steps[7:9] == [TextReceived("What? What? "), ToolResultReceived("call", "{}")]
    assert [type(step).__name__ for step in steps[9:]] == [
        "AudioEnded",
        "PromptEnded",
        "SessionEnded",
    ]


def long_history(count, size=10):
    return [
        event
        for number in range(count)
        for event in block(f"h{number}", role=["USER", "ASSISTANT"][number % 2], text="x" * size)
    ]


AUDIO = block("audio", "AUDIO", interactive=True)


@pytest.mark.parametrize(
    ("events", "error"),
    [
        (BEGIN[1:], "first event must be sessionStart"),
        ([BEGIN[0], BEGIN[0]], "sessionStart must come once"),
        ([BEGIN[0], SYSTEM[0]], "promptStart must come before"),
        ([*BEGIN, BEGIN[1]], "promptStart must come once"),
        ([*BEGIN, END[1]], "promptEnd must come before sessionEnd"),
        ([*BEGIN, *SYSTEM, *block("again", role="SYSTEM")], "SYSTEM content must come once"),
        ([*BEGIN, *SYSTEM, *block("system")], "There was a content named"),
        ([*BEGIN, *AUDIO[:1], *SYSTEM], "must come before the history and the audio"),
        ([*BEGIN, *SYSTEM, *block("h", role="ASSISTANT")], "begin with a message of the USER"),
        ([*BEGIN, *SYSTEM, *block("h1"), *block("h2")], "must alternate"),
        ([*BEGIN, *SYSTEM, *AUDIO[:1], *block("h")], "complete before the audio begins"),
        ([*BEGIN, *block("h"), *SYSTEM], "must come before the history and the audio"),
        ([*BEGIN, *block("x", interactive=True), *block("h")], "complete before the audio"),
        ([*BEGIN, *SYSTEM, *long_history(41)], "at most 40 messages"),
        (
            [*BEGIN, *SYSTEM, *long_history(1, 50_001)],
            "50001 bytes is too long: the limit here is 50000",
        ),
        ([*BEGIN, *SYSTEM, *long_history(5, 49_000)], "too long: the limit here is 4000"),
        ([*BEGIN, *SYSTEM, *AUDIO, *block("b", "AUDIO", interactive=True)], "AUDIO .* once"),
        ([*BEGIN, *SYSTEM, *block("b", "AUDIO")], "is interactive, of a USER"),
        ([*BEGIN, *SYSTEM[:1], *AUDIO], "system is still open"),
        ([*BEGIN, *SYSTEM, AUDIO[1]], "No content audio is open"),
        ([*BEGIN, *AUDIO[:1], ("textInput", AUDIO[1][1])], "is of type AUDIO"),
        ([*BEGIN, SYSTEM[0], SYSTEM[2]], "ended without any text"),
        ([*BEGIN, *SYSTEM, *AUDIO, *block("x", "TOOL", "TOOL")], "No tool use x waits"),
        ([*BEGIN, *SYSTEM, *AUDIO, *block("call", "TOOL", "USER")], "has the role TOOL"),
        ([*BEGIN, *SYSTEM, *AUDIO[:2], END[0]], "audio is still open"),
        ([*BEGIN, *SYSTEM, *AUDIO, END[0], *block("x")], "after promptEnd but sessionEnd"),
        ([*BEGIN, *SYSTEM, *AUDIO, *END, END[1]], "after sessionEnd"),
        ([*BEGIN, ("promptEnd", {"promptName": "other"})], "No prompt is called other"),
        ([*BEGIN, *block("h", role="ASSISTANT", interactive=True)], "interactive of the role"),
        ([*BEGIN, *block("h", role="TOOL")], "of the role TOOL"),
    ],
)
def test_error_texts_of_refusals(events, error):
    _, at, message = follow(events, calls=["call"])
    assert at is not None
    assert re.search(error, message), message


def test_call_gets_one_result():
    live = [*BEGIN, *SYSTEM, AUDIO[0], *block("call", "TOOL", "TOOL")]
    again = [(n, {**f, "contentName": "again"}) for n, f in block("call", "TOOL", "TOOL")]
    assert not refused(live, calls=["call"])
    assert follow([*live, *again], calls=["call"])[2] == "No tool use call waits for a result."


@pytest.mark.parametrize(
    ("model", "session", "good"),
    [
        (MODEL, session_start("HIGH"), True),
        (f"us.{MODEL}", session_start("LOW"), True),
        (MODEL, session_start(endpointingSensitivity="HIGH"), False),
        (NOVA_1, session_start(endpointingSensitivity="HIGH"), True),
        (NOVA_1, session_start("HIGH"), False),
        (NOVA_1, session_start(), True),
    ],
)
def test_turn_detection_is_accepted_where_the_model_expects_it(model, session, good):
    assert refused([("sessionStart", session)], model=model) == (not good)


def test_older_model_accepts_less():
    small = [*BEGIN, *SYSTEM]
    small[0] = ("sessionStart", session_start())
    assert not refused([*small, *long_history(2, 1000)], model=NOVA_1)
    assert "1001 bytes" in follow([*small, *long_history(1, 1001)], model=NOVA_1)[2]
    assert "must have an AUDIO" in follow([*small, *END], model=NOVA_1)[2]
    assert not refused([*small, *END], model=MODEL)
    voices = [
        small[0],
        ("promptStart", prompt_start(audioOutputConfiguration=audio_out(24000, "greta"))),
    ]
    assert not refused(voices, model=NOVA_1)
    assert follow(voices, model=MODEL)[2] == "Received invalid voiceId: greta."


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({}, "an event is"),
        ([], "an event is"),
        ({"event": {}}, "an event is"),
        (
            {"event": {"turnDetectionConfiguration": {}, "x": {}}},
            "turnDetectionConfiguration is not",
        ),
        ({"event": {"sessionStart": {}}, "x": 1}, "an event is"),
        ({"event": {"sessionBegin": {}}}, "sessionBegin is not an event"),
        ({"event": {"sessionEnd": []}}, "sessionEnd is not an event"),
        ({"event": {"sessionEnd": {"x": 1}}}, "sessionEnd.x: Unexpected"),
        ({"event": {"sessionStart": session_start("FAST")}}, "endpointingSensitivity: Input"),
        ({"event": {"sessionStart": session_start(inferenceConfiguration={"topP": 2})}}, "topP"),
        (
            {"event": {"sessionStart": session_start(inferenceConfiguration={"maxTokens": "9"})}},
            "maxTokens: Input should be a valid integer",
        ),
        ({"event": {"promptStart": {"promptName": ""}}}, "promptName: String should have"),
        (
            {"event": {"promptStart": prompt_start(rate=22050)}},
            "sampleRateHertz: Input should be 8000, 16000 or 24000",
        ),
        (
            {"event": {"promptStart": prompt_start([{"toolSpec": {"name": "x"}}])}},
            "toolConfiguration.tools.0.toolSpec.inputSchema",
        ),
        (
            {
                "event": {
                    "promptStart": prompt_start(
                        [
                            {
                                "toolSpec": {
                                    "name": "x",
                                    "description": "d",
                                    "inputSchema": {"json": {"type": "object"}},
                                }
                            }
                        ]
                    )
                }
            },
            "inputSchema.json: Input should be a valid string",
        ),
        (
            {
                "event": {
                    "promptStart": prompt_start(
                        [
                            {
                                "toolSpec": {
                                    "name": "x",
                                    "description": "d",
                                    "inputSchema": {"json": "{"},
                                }
                            }
                        ]
                    )
                }
            },
            "Input should be a JSON schema as a string",
        ),
    ],
)
def test_invalid_event_is_refused(event, error):
    with pytest.raises(RefusedError) as refusal:
        parse(*split_event(json.loads(json.dumps(event))))
    assert error in str(refusal.value)


@pytest.mark.parametrize("content", ["%%%", "AAA", "AA=="])
def test_audio_is_base64_of_complete_samples(content):
    audio_input = ("audioInput", {"promptName": PROMPT, "contentName": "audio", "content": content})
    assert "audioInput.content" in follow([*BEGIN, AUDIO[0], audio_input])[2]


def test_fields_beside_an_event_have_no_effect():
    beside = {"turnDetectionConfiguration": {"endpointingSensitivity": "HIGH"}}
    for event in ({"sessionStart": {}, **beside}, {**beside, "sessionStart": {}}):
        assert split_event({"event": event}) == ("sessionStart", {})
    step = InputStateMachine("amazon.nova-2-sonic-v1:0").accept(
        parse(*split_event({"event": {"sessionStart": {}, **beside}}))
    )
    assert step.event.turn_detection_configuration is None


@pytest.mark.parametrize(
    ("model", "nova_2"),
    [
        ("amazon.nova-sonic-v1:0", False),
        ("amazon.nova-2-sonic-v1:0", True),
        ("amazon.nova-2-5-sonic", True),
        ("us.amazon.nova-2-5-sonic", True),
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-2-5-sonic", True),
    ],
)
def test_later_models_accept_what_nova_2_accepts(model, nova_2):
    assert InputStateMachine(model).nova_2 is nova_2
