"""Whatever a brain answers and whenever it is interrupted, Nova Sonic's blocks tell it rightly."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pybase64
import pytest

pytest.importorskip("aws_sdk_bedrock_runtime", reason="the aws extra is not installed")
pytest.importorskip("h2", reason="the simulate extra is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.clock import LoopClock
from duologue.simulator.nova.blocks import INTERRUPTED, Blocks
from duologue.simulator.nova.playing import Playing
from duologue.simulator.nova.speech import Speech, sentences
from duologue.testing import virtual_time

RATE = 8000


class Told:
    """What the blocks tell, and when."""

    def __init__(self):
        self.blocks = []

    def emit(self, name, fields):
        now = asyncio.get_running_loop().time()
        match name:
            case "contentStart":
                assert not self.blocks or self.blocks[-1]["stop"]
                extra = json.loads(fields.get("additionalModelFields", "{}"))
                kind = extra.get("generationStage", fields["type"])
                self.blocks.append({"kind": kind, "words": "", "samples": 0, "stop": ""})
            case "textOutput":
                self.blocks[-1]["words"] += fields["content"]
            case "toolUse":
                self.blocks[-1]["words"] = fields["toolName"]
            case "audioOutput":
                sound = np.frombuffer(pybase64.b64decode(fields["content"]), "<i2")
                assert 0 < len(sound) <= RATE // 10
                self.blocks[-1]["samples"] += len(sound)
            case "contentEnd":
                self.blocks[-1]["stop"] = fields["stopReason"]
                self.blocks[-1]["at"] = now

    def of(self, *kinds):
        return [one for one in self.blocks if one["kind"] in kinds]

    def words(self, kind):
        return [one["words"] for one in self.of(kind) if one["words"] != INTERRUPTED]


TEXTS = st.sampled_from(
    ["Yes.", "It is sunny. Take a hat!", "One two three", " four five. ", "What? No. Well...", "a"]
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("text"), TEXTS),
        # At least 10 ms at the highest rate: of less the resampler may give nothing yet.
        st.tuples(st.just("audio"), st.integers(240, 9000)),
        st.tuples(st.just("sleep"), st.floats(0.01, 2.0)),
        st.tuples(st.just("call"), st.sampled_from(["weather", "search"])),
    ),
    max_size=12,
)


class Line:
    def __init__(self, rate=RATE):
        self.told = Told()
        self.calls = []
        self.ended = 0
        clock = LoopClock()
        self.blocks = Blocks(self.told.emit, "p", RATE)
        self.playing = Playing(self.blocks, clock)
        self.speech = Speech(
            self.blocks, self.playing, clock, rate=rate, called=self.call, ended=self.end
        )

    def call(self, call_id, name, arguments):
        self.calls.append((call_id, arguments))
        self.blocks.tool_use(call_id, name, arguments)

    def end(self):
        self.ended += 1

    async def follow(self, steps):
        for kind, what in steps:
            match kind:
                case "text":
                    self.speech.text(what, "item")
                case "audio":
                    self.speech.audio(np.ones(what, np.int16))
                case "sleep":
                    await asyncio.sleep(what)
                case "call":
                    self.speech.call("id", what, "{}")
        self.speech.end()


def spoken(steps):
    """The words of the steps that are given in texts, as they will be told."""
    parts, last = [], ""
    for kind, what in steps:
        if kind == "text" and last == "text":
            parts[-1] = " ".join((*sentences(parts[-1]), what))
        elif kind == "text":
            parts.append(what)
        if kind != "sleep":
            last = kind
    return [sentence for part in parts for sentence in sentences(part)]


def stretches(steps):
    """Samples of sound up to each call, and up to the end."""
    found = [0]
    for kind, what in steps:
        if kind == "call":
            found.append(0)
        elif kind == "audio":
            found[-1] += what
    return found


@settings(max_examples=150, deadline=None)
@given(STEPS, st.sampled_from([RATE, 3 * RATE]))
def test_all_is_told_once_and_in_order(steps, rate):
    @virtual_time
    async def tell():
        line = Line(rate)
        await line.follow(steps)
        await asyncio.sleep(60)
        return line

    line = tell()
    told = line.told
    assert line.ended == 1
    sound = told.of("AUDIO")
    sent = [0]
    for one in told.blocks:
        if one["kind"] == "TOOL":
            sent.append(0)
        sent[-1] += one["samples"]
    assert sent == [-(-samples * RATE // rate) for samples in stretches(steps)]
    assert told.words("SPECULATIVE") == spoken(steps)
    assert told.words("FINAL") == told.words("SPECULATIVE")
    assert told.words("TOOL") == [name for kind, name in steps if kind == "call"]
    assert len(line.calls) == len(told.of("TOOL"))
    ends = [one["stop"] for one in sound]
    assert set(ends[:-1]) <= {"PARTIAL_TURN"}
    calls_last = bool(steps) and [k for k, _ in steps if k != "sleep"][-1:] == ["call"]
    if not calls_last:
        assert ends[-1] == "END_TURN"
    kinds = [one["kind"] for one in told.blocks]
    for at, kind in enumerate(kinds):
        if kind == "SPECULATIVE":
            assert kinds[at + 1] == "AUDIO"


@settings(max_examples=150, deadline=None)
@given(STEPS, st.floats(0.0, 6.0))
def test_an_interruption_cuts_what_was_not_played(steps, when):
    @virtual_time
    async def tell():
        line = Line()
        telling = asyncio.ensure_future(line.follow(steps))
        await asyncio.sleep(when)
        telling.cancel()
        before = [one for one in line.told.blocks if one["kind"] == "FINAL"]
        line.speech.cut()
        line.playing.cut()
        line.blocks.interrupted()
        count = len(line.told.blocks)
        await asyncio.sleep(60)
        assert len(line.told.blocks) == count
        return line, before

    line, _ = tell()
    told = line.told
    said, planned = told.words("FINAL"), told.words("SPECULATIVE")
    assert said == planned[: len(said)]
    assert told.blocks[-1]["words"] == INTERRUPTED
    assert planned == spoken(steps)[: len(planned)]
    # A sentence is told to have been said when its sound, and all before it, has been played.
    sounds = [one for one in told.blocks if one["kind"] == "AUDIO"]
    finals = [one for one in told.of("FINAL") if one["words"] != INTERRUPTED]
    played = 0.0
    named = iter(finals)
    for index, block in enumerate(told.blocks):
        if block["kind"] == "AUDIO":
            played += block["samples"] / RATE
            if index and told.blocks[index - 1]["kind"] == "SPECULATIVE":
                final = next(named, None)
                if final is None:
                    break
                assert final["at"] >= played - 1e-6
    assert all(one["stop"] in ("PARTIAL_TURN", "END_TURN", "INTERRUPTED") for one in sounds)


@virtual_time
async def test_an_end_that_was_not_told_yet_is_not_told_after_a_cut():
    line = Line()
    line.speech.text("Yes.", "item")
    line.speech.audio(np.ones(800, np.int16))
    line.speech.end()
    line.speech.cut()
    await asyncio.sleep(1)
    assert line.told.blocks == []
    assert line.ended == 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Yes. No.", ["Yes.", "No."]),
        ('Hi! How is 3.5 today? "Fine." Good', ["Hi!", "How is 3.5 today?", '"Fine."', "Good"]),
        ("one two", ["one two"]),
        ("Well... yes", ["Well...", "yes"]),
        ("a\nb. c", ["a\nb.", "c"]),
        ("  ", [""]),
        ("", [""]),
    ],
)
def test_a_text_has_sentences(text, found):
    assert sentences(text) == found
