"""Options as text: the annotation of each says how its text is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from duologue import SemanticVAD, ServerVAD
from duologue.errors import ConfigError
from duologue.providers import cartesia, deepgram, openai
from duologue.providers.settings import option_names, read_settings

if TYPE_CHECKING:
    from decimal import Decimal

type Size = Literal["small", "big", 3]


@dataclass
class Pause:
    seconds: float
    kind: str = "plain"

    def __post_init__(self):
        if self.seconds == 13:
            raise ConfigError("seconds must not be 13")


def part(
    count: int,
    plain,
    *,
    share: float = 0.5,
    fast: bool = False,
    name: str = "",
    size: Size | None = None,
    file: Path | None = None,
    words: Sequence[str] = (),
    fields: Mapping[str, object] | None = None,
    pause: Pause | int | None = None,
    callback: "Decimal | None" = None,
    number: int | Literal["inf"] | None = None,
    **others: object,
) -> None:
    """A part with an option of each kind."""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("count=3", 3),
        ("count= -3 ", -3),
        ("plain=any text = more", "any text = more"),
        ("share=0.25", 0.25),
        ("share=2", 2.0),
        ("fast=on", True),
        ("fast=False", False),
        ("name=None", "None"),
        ("name=7", "7"),
        ("size=big", "big"),
        ("size=3", 3),
        ("size=none", None),
        ("size=None", None),
        ("file=notes.md", Path("notes.md")),
        ("words=Ada, Blue Door", ("Ada", "Blue Door")),
        ('words=["a,b"]', ("a,b",)),
        ('fields={"a": [1]}', {"a": [1]}),
        ("pause=Pause(2.5, kind='long')", Pause(2.5, "long")),
        ("pause=4", 4),
        ("number=inf", "inf"),
        ("number=5", 5),
    ],
)
def test_a_text_is_read_as_its_annotation_says(text, value):
    name = text.partition("=")[0]
    read = read_settings(part, [text])
    assert read == {name: value}
    assert type(read[name]) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count=three", "count must be an integer, not 'three'"),
        ("share=nan", "share must be a number, not 'nan'"),
        ("size=huge", "size must be small or big or 3 or None, not 'huge'"),
        ("fast=maybe", "fast must be true or false, not 'maybe'"),
        ("name=", "name must be a text, not ''"),
        ("words=[1", "words must be a JSON list, not '[1'"),
        ("fields=[1]", "fields must be a JSON object or None, not '[1]'"),
        ("fields={1", "fields must be a JSON object or None, not '{1'"),
        ("pause=Pause(", "pause must be an integer or Pause(...) or None, not 'Pause('"),
        ("pause=Break(1)", "pause must be an integer or Pause(...) or None, not 'Break(1)'"),
        ("pause=Pause(later())", "Pause(later()): malformed node or string on line 1"),
        ("pause=Pause(13)", "seconds must not be 13"),
        ("callback=1", "callback can't be written as text: set it in a program"),
        ("conut=1", "has no option 'conut'; did you mean count?"),
        ("xyz=1", "has no option 'xyz'; it has: count, fast, fields, file, name"),
        ("count", "a setting is written key=value, not 'count'"),
    ],
)
def test_an_invalid_setting_is_an_error_that_says_what_may_be_written(text, message):
    with pytest.raises(ConfigError) as error:
        read_settings(part, [text])
    assert message in str(error.value)


def test_the_last_setting_of_a_key_counts():
    assert read_settings(part, ["count=1", "count=2"]) == {"count": 2}


def test_options_of_providers_are_read_from_their_declarations():
    read = read_settings(
        openai.Realtime,
        ["speed=1.1", 'turn_detection=SemanticVAD(eagerness="high")', "transcription=None"],
    )
    assert read == {
        "speed": 1.1,
        "turn_detection": SemanticVAD(eagerness="high"),
        "transcription": None,
    }
    assert read_settings(openai.Realtime, ["turn_detection=ServerVAD()"]) == {
        "turn_detection": ServerVAD()
    }
    assert read_settings(deepgram.STT, ["keyterms=Ada,Door"]) == {"keyterms": ("Ada", "Door")}
    assert "speed" in option_names(cartesia.TTS)
    assert "ssl_context" not in option_names(cartesia.TTS)


def test_the_owner_of_an_unknown_option_is_named_as_users_write_it():
    with pytest.raises(ConfigError, match=r"^openai.Realtime has no option 'sped'"):
        read_settings(openai.Realtime, ["sped=1"])
