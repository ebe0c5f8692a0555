"""Turns of Nova Sonic, with the official SDK as the client, in virtual time."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

pytest.importorskip("aws_sdk_bedrock_runtime", reason="the aws extra is not installed")
pytest.importorskip("h2", reason="the simulate extra is not installed")

from nova_client import NOVA_1, QUICK, connected, silence, tone

from duologue.items import AgentItem, UserItem
from duologue.realtime.commands import AddItem, DeleteItem, RequestReply, Truncate
from duologue.testing import NovaSimulator, Reply, run_virtual, virtual_time

PLANNED, SAID = "TEXT ASSISTANT SPECULATIVE", "TEXT ASSISTANT FINAL"
CUT = (SAID, '{ "interrupted" : true }', "INTERRUPTED")


def now():
    return asyncio.get_running_loop().time()


def answering(*replies, **options):
    options.setdefault("endpointing_ms", QUICK)
    return NovaSimulator(replies=replies or [Reply("Yes.", 0.2)] * 3, **options)


def conversation(session):
    return [(one.role, one.text) for one in session.conversation]


@virtual_time
async def test_events_of_a_turn_come_in_the_order_of_the_protocol():
    reply = Reply("It is sunny. Take a hat.", 2.0)
    async with answering(reply, transcripts=["How is it?"]) as sim, connected(sim) as client:
        await client.send_turn()
        await client.receive_reply()
        assert client.blocks == [
            ("TEXT USER FINAL", "How is it?", "PARTIAL_TURN"),
            (PLANNED, "It is sunny.", "PARTIAL_TURN"),
            ("AUDIO ASSISTANT", "", "PARTIAL_TURN"),
            (PLANNED, "Take a hat.", "PARTIAL_TURN"),
            ("AUDIO ASSISTANT", "", "END_TURN"),
            (SAID, "It is sunny.", "PARTIAL_TURN"),
            (SAID, "Take a hat.", "END_TURN"),
        ]
        assert len(client.audio) == 2 * 24000
        await client.end()
        assert await client.until("never") is None
        assert client.names[-1] == "completionEnd"
    (session,) = sim.sessions
    assert conversation(session) == [
        ("USER", "How is it?"),
        ("ASSISTANT", "It is sunny. Take a hat."),
    ]
    assert session.ended_cleanly
    assert session.closed
    assert session.system_prompt == "Be kind."
    assert session.events_out == client.names


@virtual_time
async def test_every_event_carries_the_ids_of_its_session_and_block():
    async with answering() as sim, connected(sim) as client:
        for _ in range(2):
            await client.send_turn()
            await client.receive_reply()
        assert client.names.count("completionStart") == 1
        ids = {
            (one["sessionId"], one["promptName"], one["completionId"]) for _, one in client.events
        }
        assert len(ids) == 1
        assert ids.pop()[1] == "prompt-1"
        open_block = None
        seen = set()
        for name, fields in client.events:
            match name:
                case "contentStart":
                    assert open_block is None
                    open_block = fields["contentId"]
                    assert open_block not in seen
                    seen.add(open_block)
                case "contentEnd" | "textOutput" | "audioOutput":
                    assert fields["contentId"] == open_block
                    if name == "contentEnd":
                        open_block = None


@virtual_time
async def test_spoken_text_is_sent_once_it_has_been_played():
    reply = Reply("One two. Three four. Five six seven.", 6.0)
    async with answering(reply) as sim, connected(sim) as client:
        await client.send_turn()
        await client.until("contentEnd", type="AUDIO", stopReason="END_TURN")
        began = now()
        times = []
        for _ in range(3):
            await client.until("textOutput")
            times.append(round(now() - began, 1))
        # 8, 11 and 15 of 34 letters.
        assert times == [1.4, 3.4, 6.0]


@virtual_time
async def test_slow_audio_is_divided_at_the_usual_speed_of_speech():
    reply = Reply("One two three. Four five six seven eight.", 4.0, pace=1.0)
    async with answering(reply) as sim, connected(sim) as client:
        await client.send_turn()
        await client.receive_reply()
        assert [one[1:] for one in client.blocks if one[0] in (PLANNED, SAID)] == [
            ("One two three.", "PARTIAL_TURN"),
            ("Four five six seven eight.", "PARTIAL_TURN"),
            ("One two three.", "PARTIAL_TURN"),
            ("Four five six seven eight.", "END_TURN"),
        ]
        second = client.names.index("audioOutput", client.names.index("contentEnd", 12))
        first = client.names[:second].count("audioOutput")
        assert first == 10  # 14 letters at 15 letters a second, in pieces of 100 ms
        assert len(client.audio) == 4 * 24000


@pytest.mark.parametrize(
    ("sensitivity", "ms"), [("HIGH", 1500), ("MEDIUM", 1750), ("LOW", 2000), (None, 1750)]
)
def test_silence_ends_a_turn_by_sensitivity(sensitivity, ms):
    @virtual_time
    async def run():
        async with answering(endpointing_ms={}, keep_audio=True) as sim:
            async with connected(sim, turns=sensitivity) as client:
                await client.send_audio(np.concatenate((tone(0.4), silence(3.0))))
                await client.receive_reply()
            (turn,) = sim.sessions[0].user_turns
            assert np.abs(turn.samples).max() > 5000
            return turn.end - turn.start

    assert run() / 16 == pytest.approx(400 + ms, abs=20)


@pytest.mark.parametrize("chunk", [100, 320, 512, 7777, 10**6])
@pytest.mark.parametrize("rate", [8000, 16000, 24000])
def test_turns_do_not_depend_on_chunks_and_rates(chunk, rate):
    @virtual_time
    async def run():
        parts = [silence(1.0, rate), tone(0.5, rate), silence(0.5, rate), tone(0.3, rate)]
        async with answering() as sim, connected(sim, input=rate) as client:
            await client.send_audio(np.concatenate([*parts, silence(0.5, rate)]), chunk)
            await client.receive_reply()
            session = sim.sessions[0]
            assert session.audio_in_samples == round(2.8 * rate)
            return [
                (turn.start * 1000 // rate, turn.end * 1000 // rate) for turn in session.user_turns
            ]

    assert run() == [(700, 1700), (1700, 2500)]


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
def test_audio_comes_at_the_requested_rate(rate):
    async def run():
        async with answering(Reply("Yes.", 1.0)) as sim, connected(sim, output=rate) as client:
            await client.send_turn()
            await client.receive_reply()
            audio = client.audio
            assert len(audio) == rate
            spectrum = np.abs(np.fft.rfft(audio.astype(float)))
            assert np.argmax(spectrum) == 440
            starts = [one for one in client.of("contentStart") if one["type"] == "AUDIO"]
            assert starts[0]["audioOutputConfiguration"]["sampleRateHertz"] == rate

    run_virtual(run(), grace=0.0)


@virtual_time
async def test_interruption_while_audio_plays():
    reply = Reply("One two three. Four five six.", 6.0)
    async with answering(reply, "Yes?", transcripts=["Go.", "Stop."]) as sim:
        async with connected(sim) as client:
            await client.send_turn()
            await client.until("contentEnd", type="AUDIO", stopReason="END_TURN")
            await asyncio.sleep(4.0)
            began = now()
            await client.send_turn()
            await client.receive_reply()
            assert now() - began == pytest.approx(0.1 + 4 / 15, abs=0.05)
            assert client.blocks[-6:] == [
                (SAID, "One two three.", "PARTIAL_TURN"),
                CUT,
                ("TEXT USER FINAL", "Stop.", "PARTIAL_TURN"),
                (PLANNED, "Yes?", "PARTIAL_TURN"),
                ("AUDIO ASSISTANT", "", "END_TURN"),
                (SAID, "Yes?", "END_TURN"),
            ]
        session = sim.sessions[0]
        assert conversation(session) == [
            ("USER", "Go."),
            ("ASSISTANT", "One two three."),
            ("USER", "Stop."),
            ("ASSISTANT", "Yes?"),
        ]
        # The backend knows what was spoken, and how much.
        (cut,) = [c for c in session.backend.commands if isinstance(c, Truncate | DeleteItem)]
        assert cut.heard_text == "One two three."
        assert cut.played_ms == pytest.approx(4000, abs=150)


@virtual_time
async def test_interruption_while_audio_is_generated():
    reply = Reply("One two three four five six seven eight nine ten.", 8.0, pace=1.0)
    async with answering(reply, "Yes?") as sim, connected(sim) as client:
        await client.send_turn()
        await client.until("audioOutput")
        await asyncio.sleep(2.0)
        await client.send_audio(tone(0.1))
        await client.until("contentEnd", stopReason="INTERRUPTED", type="TEXT")
        assert client.blocks[-2:] == [("AUDIO ASSISTANT", "", "INTERRUPTED"), CUT]
        made = len(client.audio) / 24000
        assert made == pytest.approx(2.1, abs=0.2)
        await client.send_turn()
        await client.receive_reply()
        assert len(client.audio) / 24000 - made == pytest.approx(4 / 15, abs=0.01)
        # No sentence was spoken to its end.
        assert any(isinstance(c, DeleteItem) for c in sim.sessions[0].backend.commands)


@virtual_time
async def test_interruption_while_audio_is_generated_too_slowly():
    reply = Reply("One two three four five.", 4.0, pace=0.5)
    async with answering(reply, "Yes?") as sim, connected(sim) as client:
        await client.send_turn()
        await client.until("audioOutput")
        await asyncio.sleep(1.15)  # All that was sent has been played.
        await client.send_audio(tone(0.1))
        await client.until("contentEnd", stopReason="INTERRUPTED", type="TEXT")
        assert client.blocks[-2:] == [("AUDIO ASSISTANT", "", "INTERRUPTED"), CUT]


@virtual_time
async def test_audio_that_is_too_short_for_its_text():
    reply = Reply("One two three. Four five six. Seven.", 0.5, pace=1.0)
    async with answering(reply) as sim, connected(sim) as client:
        await client.send_turn()
        await client.receive_reply()
        planned = [text for kind, text, _ in client.blocks if kind == PLANNED]
        assert planned == ["One two three.", "Four five six.", "Seven."]
        assert conversation(sim.sessions[0])[-1] == (
            "ASSISTANT",
            "One two three. Four five six. Seven.",
        )
        assert len(client.audio) == 12000


@virtual_time
async def test_speech_before_the_reply_begins_only_cancels_it():
    async with answering(Reply("Late.", after_s=1.0), "Yes?") as sim, connected(sim) as client:
        await client.send_turn()
        await client.until("textOutput")
        await client.send_turn()
        await client.receive_reply()
        await client.receive_for(3.0)
        assert [text for kind, text, _ in client.blocks if kind == PLANNED] == ["Yes?"]
        assert CUT not in client.blocks


@virtual_time
async def test_speech_after_all_was_played_interrupts_nothing():
    async with answering() as sim, connected(sim) as client:
        for _ in range(2):
            await client.send_turn()
            await client.receive_reply()
        assert CUT not in client.blocks


@virtual_time
async def test_turn_without_words_gets_no_reply():
    async with answering("Yes?", transcripts=["", "hello"]) as sim, connected(sim) as client:
        await client.send_turn()
        await client.receive_for(3.0)
        assert client.names == []
        await client.send_turn()
        await client.receive_reply()
        assert client.blocks[0] == ("TEXT USER FINAL", "hello", "PARTIAL_TURN")
        assert client.blocks[1] == (PLANNED, "Yes?", "PARTIAL_TURN")


@virtual_time
async def test_empty_reply_still_ends_the_turn():
    async with answering(Reply("", 0.0), "Yes.") as sim, connected(sim) as client:
        await client.send_turn()
        await client.until("contentEnd", type="AUDIO", stopReason="END_TURN")
        await client.send_turn()
        await client.receive_reply()
        assert client.names.count("audioOutput") == 3


@virtual_time
async def test_text_makes_the_model_speak_without_any_speech():
    async with answering("Hello!", "Bye.") as sim, connected(sim, audio=False) as client:
        await client.send_text("Greet the person.", interactive=True)
        await client.receive_reply()
        assert client.blocks == [
            (PLANNED, "Hello!", "PARTIAL_TURN"),
            ("AUDIO ASSISTANT", "", "END_TURN"),
            (SAID, "Hello!", "END_TURN"),
        ]
        await client.start_audio()
        await client.send_turn()
        await client.receive_reply()
        items = [c.item for c in sim.sessions[0].backend.commands if isinstance(c, AddItem)]
        assert [(item.text, item.spoken) for item in items] == [("Greet the person.", False)]


@virtual_time
async def test_text_interrupts_a_reply():
    async with answering(Reply("One two three.", 5.0), "Bye.") as sim, connected(sim) as client:
        await client.send_turn()
        await client.until("contentEnd", type="AUDIO", stopReason="END_TURN")
        await asyncio.sleep(1.0)
        await client.send_text("Say goodbye.", interactive=True)
        await client.receive_reply()
        assert client.blocks[3:] == [
            CUT,
            (PLANNED, "Bye.", "PARTIAL_TURN"),
            ("AUDIO ASSISTANT", "", "END_TURN"),
            (SAID, "Bye.", "END_TURN"),
        ]


@virtual_time
async def test_older_model_replies_to_a_text_with_the_next_turn():
    async with answering("Hello!") as sim, connected(sim, NOVA_1) as client:
        await client.send_text("Greet the person.", interactive=True)
        await client.receive_for(3.0)
        assert client.names == []
        await client.send_turn()
        await client.receive_reply()
        commands = sim.sessions[0].backend.commands
        kinds = [type(c) for c in commands if isinstance(c, AddItem | RequestReply)]
        assert kinds == [AddItem, RequestReply]


@pytest.mark.parametrize("paraphrase", [False, True])
def test_instructed_text_is_said_word_for_word(paraphrase):
    @virtual_time
    async def run():
        simulator = answering("Something else.", paraphrase=paraphrase)
        async with simulator as sim, connected(sim) as client:
            await client.send_text('Say exactly this: """I am here. You too?"""', interactive=True)
            await client.receive_reply()
            return [text for kind, text, _ in client.blocks if kind == PLANNED]

    assert run() == (["Something else."] if paraphrase else ["I am here.", "You too?"])


@virtual_time
async def test_history_reaches_the_backend_before_any_input():
    async with answering("Yes.") as sim, connected(sim, audio=False) as client:
        await client.send_text("My name is Ada.", "USER")
        await client.send_text("Hello Ada.", "ASSISTANT")
        await client.start_audio()
        await client.send_turn()
        await client.receive_reply()
        session = sim.sessions[0]
        items = [c.item for c in session.backend.commands if isinstance(c, AddItem)]
        assert [(type(item), item.text) for item in items] == [
            (UserItem, "My name is Ada."),
            (AgentItem, "Hello Ada."),
        ]
        assert conversation(session)[:2] == [
            ("USER", "My name is Ada."),
            ("ASSISTANT", "Hello Ada."),
        ]


@virtual_time
async def test_usage_is_sent_by_modality_and_adds_up():
    simulator = answering(Reply("Yes. No.", 2.0), transcripts=["Is it so?"])
    async with simulator as sim, connected(sim) as client:
        await client.send_turn(1.0)
        await client.receive_reply()
        usages = client.of("usageEvent")
        sums = {"input": [0, 0], "output": [0, 0]}
        for usage in usages:
            for side, counts in usage["details"]["delta"].items():
                sums[side][0] += counts["speechTokens"]
                sums[side][1] += counts["textTokens"]
            for side, counts in usage["details"]["total"].items():
                assert [counts["speechTokens"], counts["textTokens"]] == sums[side]
            assert usage["totalInputTokens"] == sum(sums["input"])
            assert usage["totalOutputTokens"] == sum(sums["output"])
            assert usage["totalTokens"] == sum(sums["input"]) + sum(sums["output"])
        assert sums["output"][0] == 50  # two seconds
        assert sums["input"][0] == pytest.approx(30, abs=1)  # the turn and its silence
        assert sums["output"][1] == 2
        assert sums["input"][1] == 3


@virtual_time
async def test_end_of_the_audio_ends_the_turn():
    async with answering("Yes.") as sim, connected(sim) as client:
        await client.send_audio(tone(0.5))
        await client.send("contentEnd", promptName="prompt-1", contentName="audio-1")
        await client.send("promptEnd", promptName="prompt-1")
        # The prompt ends once its replies were generated and played.
        await client.until("completionEnd")
        assert client.blocks[-1] == (SAID, "Yes.", "END_TURN")
        await client.send("sessionEnd")
        assert await client.until("never") is None


@virtual_time
async def test_session_that_ends_during_a_reply_ends_at_once():
    async with answering(Reply("One two three.", 60.0)) as sim, connected(sim) as client:
        await client.send_turn()
        await client.until("contentEnd", type="AUDIO")
        began = now()
        await client.end()
        assert await client.until("never") is None
        assert now() - began < 0.1
        assert client.names[-1] == "completionEnd"
        assert conversation(sim.sessions[0]) == [("USER", "...")]
