from __future__ import annotations

import re

import numpy as np
import pytest

from duologue.audio import AudioFrame, Resampler
from duologue.providers.local._speakable import speakable
from duologue.weights import Store


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("The code is 0199.", "The code is zero one nine nine."),
        ("Agent 007!", "Agent zero zero seven!"),
        ("Call 555-0199.", "Call five five five, zero one nine nine."),
        ("1-800-555-0142", "one, eight zero zero, five five five, zero one four two"),
        ("(555) 123-4567", "five five five, one two three, four five six seven"),
        ("555.123.4567", "five five five, one two three, four five six seven"),
        ("+44 20 7946 0958", "plus four four, two zero, seven nine four six, zero nine five eight"),
        ("4711 1111 2222", "four seven one one, one one one one, two two two two"),
        ("Your PIN is 4711.", "Your PIN is four seven one one."),
        ("order number 55123", "order number five five one two three"),
        ("LA, CA 90210", "LA, CA nine zero two one zero"),
        ("12345678", "one two three four five six seven eight"),
        ("Code A1B2C3", "Code A one B two C three"),
        ("Dial *99# or #31#.", "Dial star nine nine hash or hash three one hash."),
        ("You are #1.", "You are number 1."),
        ("C# is F# and C++", "C sharp is F sharp and C plus plus"),
        ("3 * 4 is 12", "3 times 4 is 12"),
        ("my_notes_file", "my notes file"),
        ("**Bold", " Bold"),
    ],
)
def test_digits_of_codes_and_signs_are_spelled_out(text: str, read: str) -> None:
    assert speakable(text) == read


@pytest.mark.parametrize(
    "text",
    [
        *(
            "It costs $3.50.",
            "In 1984.",
            "From 1990-2000.",
            "2019-2024",
            "2026-11-30",
            "12-31-2026",
        ),
        *(
            "At 7:30 p.m. or 07:30.",
            "Room 412",
            "1,250 people",
            "20,000",
            "2 000 000",
            "0.5",
            "50%",
        ),
        *("10-12", "5/6", "1st", "R2D2", "COVID19", "version 3.12.1", "192.168.0.1", "12000 men"),
        *("50%", "12-31-2026"),
        *("1200000", "$1000000", "a@b.com", "It is 0 degrees.", "F16", "Well-known facts, 2 of 3."),
    ],
)
def test_other_numbers_are_left_to_the_voice(text: str) -> None:
    assert speakable(text) == text


@pytest.mark.weights
@pytest.mark.parametrize("text", ["The code is 0199.", "Call 555-0199.", "Call 1-800-555-0142."])
async def test_every_digit_is_spoken(weights: Store, text: str) -> None:
    from duologue.providers.local import engine

    voice, recogniser = engine.load_tts(), engine.load_stt()
    resampler = Resampler(voice.rate, recogniser.rate)
    frames = [resampler.push(frame.samples) async for frame in voice.synthesize(text)]
    stream = recogniser.stream()
    stream.push(AudioFrame(np.concatenate([*frames, resampler.flush()]), recogniser.rate))
    assert re.sub(r"\D", "", await stream.text()) == re.sub(r"\D", "", text)
