import json
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from duologue.events import (
    Event,
    RealtimeConnectedEvent,
    TurnMetricsEvent,
    UserTurnEndedEvent,
    events,
)
from duologue.events.json import event_to_json


def test_every_event_has_a_json_form_with_all_its_fields():
    sample = {"str": "x", "int": 3, "float": 1.5, "bool": True, "float | None": 2.0}
    for kind in get_args(Event.__value__):
        values = {
            f.name: sample.get(str(f.type), {} if "Mapping" in str(f.type) else "y")
            for f in fields(kind)
        }
        made = event_to_json(kind(**values))
        assert made.pop("type") == kind.__name__
        assert set(made) == {f.name for f in fields(kind)}
        json.dumps(made, allow_nan=False)


def test_the_type_comes_first_and_none_stays():
    made = event_to_json(UserTurnEndedEvent("person", None))
    assert list(made.items()) == [
        ("type", "UserTurnEndedEvent"),
        ("at", 0.0),
        ("participant", "person"),
        ("text", None),
        ("empty", False),
        ("turn_id", ""),
        ("silence_ms", None),
        ("ended_by", ""),
        ("votes", []),
    ]


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Inner:
    size: int


def test_nested_values_become_plain():
    config = {
        Colour.RED: Colour.RED,
        "path": Path("a") / "b",
        "inner": Inner(3),
        "list": (1, [True, None]),
        "set": {2, 1},
        "numpy": np.float32(0.5),
        4: "number",
    }
    made = event_to_json(RealtimeConnectedEvent("s", config))["session_config"]
    assert made == {
        "red": "red",
        "path": "a/b",
        "inner": {"size": 3},
        "list": [1, [True, None]],
        "set": [1, 2],
        "numpy": 0.5,
        "4": "number",
    }


def test_half_a_character_is_replaced():
    made = event_to_json(RealtimeConnectedEvent("\ud83d\ude00", {"\ud83d": ["\ud83d"]}))
    assert made["session_id"] == "\U0001f600"
    assert made["session_config"] == {"?": ["?"]}


def test_numbers_that_json_lacks_are_null():
    event = TurnMetricsEvent("s", float("nan"), float("inf"), None, 1.0, 2.0)
    made = event_to_json(event)
    assert (made["endpoint_ms"], made["transcript_ms"], made["first_audio_ms"]) == (None, None, 1.0)


@pytest.mark.parametrize("value", [object(), b"bytes", int])
def test_a_value_without_a_json_form_is_an_error(value):
    with pytest.raises(TypeError, match="no JSON equivalent"):
        event_to_json(events.RealtimeConnectedEvent("s", {"x": value}))
