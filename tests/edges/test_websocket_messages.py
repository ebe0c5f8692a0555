"""The wire protocol of the WebSocket edge."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duologue.edges._websocket_messages import (
    MESSAGES_PER_S,
    Bye,
    Digit,
    Hello,
    Image,
    MessageBudget,
    Played,
    PlayedReports,
    ProtocolError,
    Text,
    read_message,
)


@pytest.mark.parametrize(
    ("message", "meaning"),
    [
        ({"type": "hello"}, Hello()),
        (
            {
                "type": "hello",
                "token": "t",
                "rate": 24000,
                "codec": "opus",
                "played": True,
                "parameters": {"a": "b"},
            },
            Hello(
                token="t",  # noqa: S106
                rate=24000,
                codec="opus",
                reports_played=True,
                parameters={"a": "b"},
            ),
        ),
        ({"type": "played", "epoch": 0, "samples": 5}, Played(0, 5)),
        ({"type": "text", "text": "hello"}, Text("hello")),
        ({"type": "digit", "digit": "#"}, Digit("#")),
        ({"type": "image", "data": "AAA="}, Image(b"\0\0")),
        ({"type": "bye"}, Bye()),
    ],
)
def test_messages(message, meaning):
    assert read_message(json.dumps(message)) == meaning


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "format"),
        ("[" * 20000, "format"),
        ("5", "type"),
        ({"type": "surprise"}, "type"),
        ({"type": "hello", "token": 5}, "token"),
        ({"type": "hello", "rate": 44100}, "rate"),
        ({"type": "hello", "rate": True}, "rate"),
        ({"type": "hello", "codec": "mp3"}, "codec"),
        ({"type": "hello", "codec": []}, "codec"),
        ({"type": "hello", "played": 1}, "played"),
        ({"type": "hello", "parameters": {"a": 5}}, "parameters"),
        ({"type": "hello", "parameters": {str(n): "" for n in range(33)}}, "parameters"),
        ({"type": "played", "epoch": 0, "samples": -1}, "played"),
        ({"type": "played", "epoch": 0}, "played"),
        ({"type": "text", "text": ""}, "text"),
        ({"type": "text", "text": "x" * 4001}, "text"),
        ({"type": "digit", "digit": "12"}, "digit"),
        ({"type": "image", "data": "*"}, "image"),
        ({"type": "image"}, "image"),
    ],
)
def test_what_breaks_the_protocol_is_named(message, code):
    with pytest.raises(ProtocolError) as error:
        read_message(message if isinstance(message, str) else json.dumps(message))
    assert error.value.code == code


@given(st.text())
def test_no_text_raises_anything_else(text):
    with suppress(ProtocolError):
        read_message(text)


def test_reports_of_the_current_epoch_count():
    reports = PlayedReports()
    reports.given = 1000
    assert reports.report(Played(0, 400)) == 400
    assert reports.report(Played(0, 300)) is None
    assert reports.clear() == 1
    assert reports.report(Played(0, 900)) is None
    reports.given = 1500
    assert reports.report(Played(1, 200)) == 1200  # dropped audio counts as played
    assert reports.report(Played(1, 501)) is None
    assert reports.report(Played(2, 1)) is None
    assert (reports.played, reports.ignored) == (1200, 3)


def test_the_budget_is_that_of_a_second():
    budget = MessageBudget(10.0)
    assert all(budget.spend(10.0) for _ in range(int(MESSAGES_PER_S)))
    assert not budget.spend(10.0)
    assert budget.spend(10.5)
