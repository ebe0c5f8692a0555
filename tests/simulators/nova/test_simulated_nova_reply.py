"""Nova Sonic's blocks are right for any reply of the backend and any time of interruption."""

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
from duologue.simulators.nova._blocks import INTERRUPTED, Blocks
from duologue.simulators.nova._playback_model import PlaybackModel
from duologue.simulators.nova._reply import OutgoingReply, split_sentences
from duologue.testing import virtual_time

RATE = 8000


class BlockLog:
    """Collects the blocks that are sent, with their times."""

    def __init__(self):
        self.blocks = []

    def emit(self, name, fields):
        now = asyncio.get_running_loop().time()
        match name:
            case "contentStart":
                assert not self.blocks or self.blocks[-1]["stop"]
                extra = json.loads(fields.get("additionalModelFields", "{}"))
                kind = extra.get("generationStage", fields["type"])
                self.blocks.append({"kind": kind, "text": "", "samples": 0, "stop": ""})
            case "textOutput":
                self.blocks[-1]["text"] += fields["content"]
            case "toolUse":
                self.blocks[-1]["text"] = fields["toolName"]
            case "audioOutput":
                audio = np.frombuffer(pybase64.b64decode(fields["content"]), "<i2")
                assert 0 < len(audio) <= RATE // 10
                self.blocks[-1]["samples"] += len(audio)
            case "contentEnd":
                self.blocks[-1]["stop"] = fields["stopReason"]
                self.blocks[-1]["at"] = now

    def of(self, *kinds):
        return [one for one in self.blocks if one["kind"] in kinds]

    def texts(self, kind):
        return [one["text"] for one in self.of(kind) if one["text"] != INTERRUPTED]


TEXTS = st.sampled_from(
    ["Yes.", "It is sunny. Take a hat!", "One two three", " four five. ", "What? No. Well...", "a"]
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("text"), TEXTS),
        # At least 10 ms at the highest rate, because the resampler may return nothing for less.
        st.tuples(st.just("audio"), st.integers(240, 9000)),
        st.tuples(st.just("sleep"), st.floats(0.01, 2.0)),
        st.tuples(st.just("call"), st.sampled_from(["weather", "search"])),
    ),
    max_size=12,
)


class ReplyHarness:
    def __init__(self, rate=RATE):
        self.log = BlockLog()
        self.calls = []
        self.ended = 0
        clock = LoopClock()
        self.blocks = Blocks(self.log.emit, "p", RATE)
        self.playback = PlaybackModel(self.blocks, clock, lambda _: None)
        self.reply = OutgoingReply(
            self.blocks,
            self.playback,
            clock,
            rate=rate,
            tool_called=self.send_call,
            reply_ended=self.reply_ended,
        )

    def send_call(self, call_id, name, arguments):
        self.calls.append((call_id, arguments))
        self.blocks.send_tool_use(call_id, name, arguments)

    def reply_ended(self):
        self.ended += 1

    async def follow(self, steps):
        for kind, what in steps:
            match kind:
                case "text":
                    self.reply.add_text(what, "item")
                case "audio":
                    self.reply.add_audio(np.ones(what, np.int16))
                case "sleep":
                    await asyncio.sleep(what)
                case "call":
                    self.reply.add_call("id", what, "{}")
        self.reply.finish()


def expected_texts(steps):
    """Return the texts of the steps as they will be sent."""
    parts, last = [], ""
    for kind, what in steps:
        if kind == "text" and last == "text":
            parts[-1] = " ".join((*split_sentences(parts[-1]), what))
        elif kind == "text":
            parts.append(what)
        if kind != "sleep":
            last = kind
    return [sentence for part in parts for sentence in split_sentences(part)]


def samples_by_segment(steps):
    """Return the samples of audio before each call, and before the end."""
    expected = [0]
    for kind, what in steps:
        if kind == "call":
            expected.append(0)
        elif kind == "audio":
            expected[-1] += what
    return expected


@settings(max_examples=150, deadline=None)
@given(STEPS, st.sampled_from([RATE, 3 * RATE]))
def test_everything_is_sent_once_and_in_order(steps, rate):
    @virtual_time
    async def run():
        harness = ReplyHarness(rate)
        await harness.follow(steps)
        await asyncio.sleep(60)
        return harness

    harness = run()
    log = harness.log
    assert harness.ended == 1
    audio = log.of("AUDIO")
    sent = [0]
    for one in log.blocks:
        if one["kind"] == "TOOL":
            sent.append(0)
        sent[-1] += one["samples"]
    assert sent == [-(-samples * RATE // rate) for samples in samples_by_segment(steps)]
    assert log.texts("SPECULATIVE") == expected_texts(steps)
    assert log.texts("FINAL") == log.texts("SPECULATIVE")
    assert log.texts("TOOL") == [name for kind, name in steps if kind == "call"]
    assert len(harness.calls) == len(log.of("TOOL"))
    ends = [one["stop"] for one in audio]
    assert set(ends[:-1]) <= {"PARTIAL_TURN"}
    calls_last = bool(steps) and [k for k, _ in steps if k != "sleep"][-1:] == ["call"]
    if not calls_last:
        assert ends[-1] == "END_TURN"
    kinds = [one["kind"] for one in log.blocks]
    for at, kind in enumerate(kinds):
        if kind == "SPECULATIVE":
            assert kinds[at + 1] == "AUDIO"


@settings(max_examples=150, deadline=None)
@given(STEPS, st.floats(0.0, 6.0))
def test_interruption_cuts_off_what_was_not_played(steps, when):
    @virtual_time
    async def run():
        harness = ReplyHarness()
        sending = asyncio.ensure_future(harness.follow(steps))
        await asyncio.sleep(when)
        sending.cancel()
        before = [one for one in harness.log.blocks if one["kind"] == "FINAL"]
        harness.reply.interrupt()
        harness.playback.interrupt()
        harness.blocks.send_interruption()
        count = len(harness.log.blocks)
        await asyncio.sleep(60)
        assert len(harness.log.blocks) == count
        return harness, before

    harness, _ = run()
    log = harness.log
    spoken_texts, planned = log.texts("FINAL"), log.texts("SPECULATIVE")
    assert spoken_texts == planned[: len(spoken_texts)]
    assert log.blocks[-1]["text"] == INTERRUPTED
    assert planned == expected_texts(steps)[: len(planned)]
    # A sentence is reported as spoken when its audio, and all audio before it, has been played.
    audio_blocks = [one for one in log.blocks if one["kind"] == "AUDIO"]
    finals = [one for one in log.of("FINAL") if one["text"] != INTERRUPTED]
    played = 0.0
    named = iter(finals)
    for index, block in enumerate(log.blocks):
        if block["kind"] == "AUDIO":
            played += block["samples"] / RATE
            if index and log.blocks[index - 1]["kind"] == "SPECULATIVE":
                final = next(named, None)
                if final is None:
                    break
                assert final["at"] >= played - 1e-6
    assert all(one["stop"] in ("PARTIAL_TURN", "END_TURN", "INTERRUPTED") for one in audio_blocks)


@virtual_time
async def test_end_that_was_not_sent_is_not_sent_after_an_interruption():
    harness = ReplyHarness()
    harness.reply.add_text("Yes.", "item")
    harness.reply.add_audio(np.ones(800, np.int16))
    harness.reply.finish()
    harness.reply.interrupt()
    await asyncio.sleep(1)
    assert harness.log.blocks == []
    assert harness.ended == 0


@pytest.mark.parametrize(
    ("text", "expected"),
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
def test_text_is_split_into_sentences(text, expected):
    assert split_sentences(text) == expected
