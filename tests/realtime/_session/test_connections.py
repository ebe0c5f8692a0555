import asyncio
from dataclasses import replace

import numpy as np
import pytest
from fake_connection import FATAL, LOST, Ear, Model, again, living, sound
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.errors import (
    ConfigError,
    ErrorKind,
    SessionClosedError,
    SessionError,
    UnsupportedError,
)
from duologue.events import RealtimeReconnectedEvent, RealtimeReconnectingEvent
from duologue.items import AgentItem, ToolResultItem, UserItem
from duologue.realtime._session.connections import SessionState
from duologue.realtime._session.resume import CONTINUE_PROMPT
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import (
    AddItem,
    DeleteItem,
    EndTurn,
    RequestReply,
    Say,
    Truncate,
    UpdateSession,
)
from duologue.realtime.outputs import (
    GoAway,
    ProviderError,
    ReplyAudio,
    ReplyDone,
    ReplyStarted,
    SpeechStarted,
    ToolCall,
    Usage,
    UserTranscript,
    UserTurnEnded,
)
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.testing import virtual_time


@virtual_time
async def test_a_lost_connection_is_replaced():
    model = Model()
    item = UserItem("u", "hello")
    async with living(model) as ear:
        ear.items = (item,)
        model.line.lose()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert model.alive
        assert not model.connected
        await asyncio.sleep(0.3)
        assert model.connected
        assert model.line.setup == SessionSetup("be kind", (), (item,))
        assert 0.1 <= model.at[1] - model.at[0] <= 0.2
        (reconnecting,) = ear.of(RealtimeReconnectingEvent)
        assert reconnecting == RealtimeReconnectingEvent("the line broke", 1)
        (reconnected,) = ear.of(RealtimeReconnectedEvent)
        assert reconnected.outcome == "replayed"
        assert reconnected.lost_ms == 0
        assert 100 <= reconnected.gap_ms <= 200
        model.line.tell(Usage({}, {}))
        model.lines[0].tell(Usage({}, {}))
        assert len(ear.of(Usage)) == 1


@pytest.mark.parametrize(
    ("plan", "abilities", "outcome"),
    [
        ({"restored": True}, {}, "restored"),
        ({}, {"accepts_history": True}, "replayed"),
        ({}, {"accepts_history": False}, "fresh"),
    ],
)
def test_the_outcome_of_a_reconnect_is_reported(plan, abilities, outcome):
    @virtual_time
    async def run():
        model = Model([{}, plan], **abilities)
        async with living(model) as ear:
            ear.items = (UserItem("u", "hello"),)
            model.line.lose()
            await again(model)
            assert ear.of(RealtimeReconnectedEvent)[0].outcome == outcome

    run()


@virtual_time
async def test_attempts_back_off_and_end():
    policy = ReconnectPolicy(max_attempts=6, base_s=0.2, cap_s=1.0)
    model = Model([{}, {"fails": SessionError("no route", kind=ErrorKind.RETRY)}], policy)
    ear = Ear()
    task = asyncio.create_task(model.run(SessionSetup(), ear))
    await model.ready()
    model.request_reply("q")
    model.line.lose()
    with pytest.raises(SessionError, match="no route"):
        await task
    waits = np.diff(model.at)
    assert len(waits) == 6
    for wait, longest in zip(waits, (0.2, 0.4, 0.8, 1, 1, 1), strict=True):
        assert longest / 2 <= wait <= longest
    told = ear.of(RealtimeReconnectingEvent)
    assert [event.attempt for event in told] == [1, 2, 3, 4, 5, 6]
    assert told[-1].reason == "no route"
    assert isinstance(ear.told[-2], tuple)
    assert isinstance(ear.told[-2][1], SessionClosedError)
    assert ear.told[-1].clean is False
    assert not model.alive


@virtual_time
async def test_the_first_connection_is_tried_less_often_and_never_after_a_fatal_error():
    for failure, tries in ((LOST, 3), (FATAL, 1)):
        model = Model([{"fails": failure}])
        with pytest.raises(SessionError, match=str(failure)):
            await model.run(SessionSetup(), Ear())
        assert len(model.lines) == tries
    model = Model([{}, {"fails": FATAL}])
    task = asyncio.create_task(model.run(SessionSetup(), Ear()))
    await model.ready()
    model.line.lose()
    with pytest.raises(SessionError, match="wrong key"):
        await task
    assert len(model.lines) == 2


@virtual_time
async def test_a_connection_that_never_begins_is_abandoned():
    model = Model([{"answers": 100.0}], ReconnectPolicy(connect_timeout_s=2.0, first_attempts=2))
    with pytest.raises(SessionError, match="within 2 s"):
        await model.run(SessionSetup(), Ear())
    assert len(model.lines) == 2
    assert all(line.closed for line in model.lines)


@virtual_time
async def test_connections_that_end_as_soon_as_they_begin_do_not_spin():
    model = Model()
    async with living(model):
        for _ in range(8):
            model.line.lose()
            await again(model, len(model.lines) + 1)
        waits = np.diff(model.at)
        assert waits[0] < 0.21
        assert waits[-1] > 4
        await asyncio.sleep(5)
        model.line.lose()
        await again(model, len(model.lines) + 1)
        assert model.at[-1] - model.at[-2] < 5.3


@virtual_time
async def test_a_clean_end_of_the_connection_ends_the_session():
    model = Model()
    ear = Ear()
    task = asyncio.create_task(model.run(SessionSetup(), ear))
    await model.ready()
    model.line.ended.set()
    await task
    assert ear.told[-1].clean
    assert len(model.lines) == 1


@virtual_time
async def test_an_error_of_the_provider_may_end_the_connection_only():
    model = Model()
    async with living(model) as ear:
        with pytest.raises(SessionError):
            model.line.tell(ProviderError(ErrorKind.RECYCLE, "session_expired", "too old"))
        assert not ear.of(ProviderError)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_sample_is_in_exactly_one_turn(data):
    """Whatever happens between the turns, each numbered sample is in one turn that counts."""

    @virtual_time
    async def run():
        model = Model(policy=ReconnectPolicy(keep_s=10.0), user_transcripts="final")
        async with living(model):
            safe, count, item, expected = 0, 0, 0, 0
            began = None
            for _ in range(data.draw(st.integers(1, 25))):
                match data.draw(st.sampled_from(["sound", "lose", "start", "end", "words"])):
                    case "sound":
                        numbers = np.arange(count, count + data.draw(st.integers(1, 300)))
                        count += len(numbers)
                        model.send_audio(sound(100 + numbers))
                    case "lose":
                        if model.connected:
                            began = None
                            expected = safe
                            model.line.lose()
                            await asyncio.sleep(data.draw(st.sampled_from([0.01, 1.0])))
                            continue
                    case "start" if model.connected and began is None:
                        began = item
                        model.line.tell(SpeechStarted(f"{item}", position=0))
                        item += 1
                    case "end" if model.connected and began is not None:
                        position = len(model.line.heard)
                        turn = UserTurnEnded(f"{began}", reply_follows=False, position=position)
                        model.line.tell(turn)
                    case "words" if model.connected and began is not None:
                        # The turn is in the history as text, so its audio is not sent again.
                        position = len(model.line.heard)
                        turn = UserTurnEnded(f"{began}", reply_follows=False, position=position)
                        model.line.tell(turn)
                        model.line.tell(UserTranscript(f"{began}", "words", final=True))
                        safe = count
                        began = None
                await asyncio.sleep(0.01)
            await asyncio.sleep(20)
            assert model.lost_audio == 0
            heard = [int(n) - 100 for n in model.line.heard]
            assert heard == list(range(expected, count))

    run()


@virtual_time
async def test_audio_of_a_long_gap_is_lost_and_counted():
    model = Model([{}, {"answers": 5.0}], ReconnectPolicy(keep_s=2.0))
    async with living(model) as ear:
        model.send_audio(sound(np.full(500, 1000)))
        model.line.tell(SpeechStarted("u", position=0))
        model.line.lose()
        for _ in range(30):
            await asyncio.sleep(0.1)
            model.send_audio(sound(np.full(100, 1000)))
        await again(model)
        assert model.lost_audio == 1500
        assert ear.of(RealtimeReconnectedEvent)[0].lost_ms == 1500
        assert len(model.line.heard) == 2000


@virtual_time
async def test_turns_without_a_transcript_are_replayed():
    model = Model()
    async with living(model) as ear:
        model.send_audio(sound(np.full(900, 1000)))
        model.line.tell(SpeechStarted("u", position=100))
        model.line.tell(UserTurnEnded("u", position=700))
        model.line.tell(ReplyStarted("r"))
        model.line.lose()
        await again(model)
        assert ("u",) in ear.told
        assert ear.lost == [("r", None)]
        assert not model.line.sent(RequestReply)
        assert len(model.line.heard) == 900


@virtual_time
async def test_a_reply_that_had_not_begun_is_requested_again():
    model = Model()
    async with living(model):
        model.line.tell(SpeechStarted("u", position=0))
        model.line.tell(UserTurnEnded("u", position=0))
        model.line.tell(UserTranscript("u", "hello", final=True))
        model.line.lose()
        await again(model)
        assert len(model.line.sent(RequestReply)) == 1
        assert model.replying


@virtual_time
async def test_requests_survive_in_order():
    model = Model()
    async with living(model) as ear:
        model.request_reply("a", "sing")
        model.say("b", "words")
        model.line.lose()
        await asyncio.sleep(0.01)
        model.request_reply("c")
        await again(model)
        line = model.line
        for request_id in "abc":
            assert line.commands[-1].request_id == request_id
            line.tell(ReplyStarted(request_id, request_id))
            line.tell(ReplyDone(request_id))
        assert line.sent(RequestReply)[0] == RequestReply("a", "sing")
        assert not [t for t in ear.told if isinstance(t, tuple)]


@pytest.mark.parametrize("said", [None, "I am"])
def test_a_reply_that_broke_off_continues(said):
    @virtual_time
    async def run():
        model = Model()
        async with living(model) as ear:
            model.request_reply("q", "sing")
            model.line.tell(ReplyStarted("r", "q"))
            ear.said["r"] = said
            model.line.lose()
            await again(model)
            (asked,) = model.line.commands
            assert ear.lost == [("r", asked.request_id)]
            assert asked.instructions == ("sing" if said is None else f"sing\n\n{CONTINUE_PROMPT}")
            model.line.tell(ReplyStarted("r2", asked.request_id))
            model.line.lose()
            await again(model, 3)
            assert model.line.commands[0].instructions.startswith("sing")

    run()


@pytest.mark.parametrize(
    ("said", "rest"),
    [
        (None, "one two three"),
        ("one two", "three"),
        ("uno", "one two three"),
        ("one two three", ""),
    ],
)
def test_scripted_text_continues_where_it_stopped(said, rest):
    @virtual_time
    async def run():
        model = Model()
        async with living(model) as ear:
            model.say("q", "one two three")
            model.line.tell(ReplyStarted("r", "q"))
            ear.said["r"] = said
            model.line.lose()
            await again(model)
            assert [c.text for c in model.line.sent(Say)] == ([rest] if rest else [])
            assert [r for r, _ in ear.lost] == ["r"]

    run()


@virtual_time
async def test_an_interruption_without_a_connection():
    model = Model([{}, {"answers": 1.0}])
    async with living(model) as ear:
        model.request_reply("q")
        model.line.tell(ReplyStarted("r", "q"))
        model.line.lose()
        await asyncio.sleep(0.5)
        ear.cuts = [Truncate("i", 10, "x")]
        assert model.interrupt() == 1
        await again(model)
        assert not model.line.commands
        assert not model.pending


@virtual_time
async def test_tool_results_reach_the_next_connection():
    model = Model([{}, {"answers": 1.0}])
    async with living(model) as ear:
        model.line.tell(ReplyStarted("r"))
        model.line.tell(ToolCall("r", "c1", "t", "{}"))
        model.line.tell(ToolCall("r", "c2", "t", "{}"))
        model.send_tool_result("c1", "t", "1", failed=False)
        model.line.lose()
        await asyncio.sleep(0.5)
        assert ear.lost == [("r", None)]
        model.send_tool_result("c2", "t", "2", failed=False)
        ear.items = (ToolResultItem("x", "c2", "2"),)
        await again(model)
        assert model.line.sent(AddItem) == [AddItem(ear.items[0])]
        assert len(model.line.sent(RequestReply)) == 1


@virtual_time
async def test_changes_during_a_connect_reach_the_new_connection():
    before = (UserItem("a", "one"), AgentItem("b", "two"), UserItem("c", "three"))
    model = Model([{}, {"answers": 1.0}])
    async with living(model, before) as ear:
        model.line.lose()
        await asyncio.sleep(0.5)
        assert model.line.setup.history == before
        ear.items = (before[0], AgentItem("b", "tw", "cut", 10), UserItem("d", "four"))
        model.add_item(ear.items[-1])
        model.update_instructions("be brief")
        model.update_tools([])
        await again(model)
        assert model.line.commands == [
            DeleteItem("c"),
            Truncate("b", 10, "tw"),
            AddItem(ear.items[-1]),
            UpdateSession(instructions="be brief"),
        ]
        model.line.lose()
        await again(model, 3)
        assert model.line.setup.instructions == "be brief"


@virtual_time
async def test_the_end_of_a_manual_turn_is_sent_again():
    model = Model(manual_turns=True, turn_reply="requested")
    async with living(model):
        model.send_audio(sound(np.full(300, 1000)))
        model.end_turn()
        model.send_audio(sound(np.full(100, 1000)))
        model.line.lose()
        await again(model)
        kinds = [type(c).__name__ for c in model.line.commands]
        assert kinds == ["SendAudio"] * 3 + ["EndTurn", "SendAudio"]
        model.line.tell(UserTurnEnded("u", reply_follows=False))
        assert model.line.sent(RequestReply)
        model.line.tell(UserTranscript("u", "hi", final=True))
        model.line.lose()
        await again(model, 3)
        assert len(model.line.heard) == 100
        assert not model.line.sent(EndTurn)


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.3, 0.6, 1.2, 1.9])
def test_a_session_closes_in_every_state(seconds):
    @virtual_time
    async def run():
        model = Model([{"answers": 0.2}, {"answers": 0.4}, {"answers": 0.4}])
        ear = Ear()
        task = asyncio.create_task(model.run(SessionSetup(), ear))
        loop = asyncio.get_running_loop()
        loop.call_later(0.25, lambda: model.line.lose())
        loop.call_later(1.0, lambda: model.alive and model.roll_over())
        await asyncio.sleep(seconds)
        began = loop.time()
        task.cancel()
        await asyncio.wait([task])
        assert loop.time() - began < 1
        assert all(line.closed for line in model.lines)
        assert model._session.connections.state is SessionState.CLOSED
        assert [t.reason for t in ear.told if hasattr(t, "clean")] == ["closed"]
        assert len(asyncio.all_tasks()) == 1

    run()


@virtual_time
async def test_illegal_transitions_raise():
    model = Model()
    with pytest.raises(SessionClosedError):
        model.roll_over()
    with pytest.raises(RuntimeError, match="can't be"):
        model._session.connections._transition(SessionState.ROLLING_OVER)
    async with living(model):
        with pytest.raises(RuntimeError, match="live can't be connecting"):
            model._session.connections._transition(SessionState.CONNECTING)
    once = Model()
    once._session.connections.reconnects = False
    async with living(once):
        once.line.tell(GoAway(1.0))
        with pytest.raises(UnsupportedError):
            once.roll_over()
        await asyncio.sleep(5)
        assert len(once.lines) == 1


@pytest.mark.parametrize(
    "values",
    [
        {"max_attempts": -1},
        {"first_attempts": 0},
        {"base_s": 0},
        {"base_s": 5.0, "cap_s": 1.0},
        {"connect_timeout_s": 0},
        {"keep_s": 0},
        {"roll_over_ahead_s": -1},
        {"max_age_s": 0},
    ],
)
def test_a_policy_that_can_not_work_is_refused(values):
    with pytest.raises(ConfigError):
        ReconnectPolicy(**values)


def test_the_ages_at_which_a_connection_is_replaced():
    assert ReconnectPolicy().roll_over_at(None) is None
    assert ReconnectPolicy().roll_over_at(3600) == (3540, 3594)
    assert ReconnectPolicy(max_age_s=100).roll_over_at(3600) == (80, 98)


@virtual_time
async def test_a_bug_in_the_observer_is_raised_unchanged():
    model = Model()
    ear = Ear()
    task = asyncio.create_task(model.run(SessionSetup(), ear))
    await model.ready()
    model.line.lose(KeyError("x"))
    with pytest.raises(KeyError):
        await task
    assert len(model.lines) == 1


@virtual_time
async def test_a_reply_that_is_being_spoken_continues_with_audio():
    model = Model()
    async with living(model) as ear:
        model.line.tell(ReplyStarted("r"))
        model.line.tell(ReplyAudio("r", "i", sound([1] * 10)))
        model.interrupt()
        model.line.lose()
        await again(model)
        assert not ear.lost
        assert not model.line.sent(RequestReply)


@virtual_time
async def test_a_manual_turn_that_has_its_reply_delays_nothing():
    model = Model(manual_turns=True, turn_reply="requested")
    async with living(model) as ear:
        model.send_audio(sound(np.full(300, 1000)))
        model.end_turn()
        model.line.tell(UserTurnEnded("u", reply_follows=False))
        asked = model.line.sent(RequestReply)[0].request_id
        model.line.tell(ReplyStarted("r", asked))
        model.line.tell(ReplyAudio("r", "i", sound([1] * 10)))
        model.line.tell(ReplyDone("r"))
        model.line.lose()
        await again(model)
        model.request_reply("next")
        assert not model.line.sent(RequestReply)
        told = len(ear.told)
        model.line.tell(UserTurnEnded("u2", reply_follows=False))
        assert [c.request_id for c in model.line.sent(RequestReply)] == ["next"]
        assert len(ear.told) == told
        words = UserTranscript("u2", "hi", final=True)
        model.line.tell(words)
        assert ear.told[-1] == UserTranscript("u", "hi", final=True)


@virtual_time
async def test_a_manual_turn_gets_a_reply_unless_it_was_empty():
    model = Model(manual_turns=True, turn_reply="requested", speech_detection="none")
    async with living(model):
        for empty, asked in ((True, 0), (False, 1)):
            model.end_turn()
            model.line.tell(UserTurnEnded("turn", reply_follows=False, empty=empty))
            assert len(model.line.sent(RequestReply)) == asked


@virtual_time
async def test_a_turn_whose_audio_is_dropped_in_an_outage_ends():
    policy = ReconnectPolicy(base_s=0.01, cap_s=0.01, keep_s=3.0)
    model = Model([{}, {"answers": 6.0}], policy)
    async with living(model) as ear:
        model.line.tell(SpeechStarted("u", position=0))
        for level, seconds in ((3000, 1.0), (0, 5.0)):
            for _ in range(round(seconds * 50)):
                await asyncio.sleep(0.02)
                model.send_audio(sound(np.full(20, level)))
                if len(model.lines) == 1 and not model.line.ended.is_set():
                    model.line.lose()
        await again(model)
        (ended,) = ear.of(UserTurnEnded)
        assert ended == UserTurnEnded("u", None, reply_follows=False, empty=True)
        assert isinstance(ear.told[-1], UserTurnEnded)
        model.line.lose()
        await again(model, 3)
        assert len(ear.of(UserTurnEnded)) == 1


@virtual_time
async def test_a_reported_transcript_stays_when_the_audio_of_its_turn_is_dropped():
    policy = ReconnectPolicy(base_s=0.01, cap_s=0.01, keep_s=2.0)
    model = Model([{}, {"answers": 4.0}], policy)
    async with living(model) as ear:
        model.line.tell(SpeechStarted("u", position=0))
        model.line.tell(UserTranscript("u", "hello", final=False))
        model.line.tell(UserTranscript("u", "hello there", final=False))
        model.line.lose()
        for _ in range(150):
            await asyncio.sleep(0.02)
            model.send_audio(sound(np.zeros(20)))
        await again(model)
        assert ear.told[-2:] == [
            UserTranscript("u", "hello there", final=True),
            UserTurnEnded("u", None, reply_follows=False),
        ]


@virtual_time
async def test_a_turn_whose_audio_is_replayed_continues():
    model = Model([{}, {"answers": 1.0}], ReconnectPolicy(base_s=0.01, cap_s=0.01))
    async with living(model) as ear:
        model.line.tell(SpeechStarted("u", position=0))
        for _ in range(20):
            await asyncio.sleep(0.02)
            model.send_audio(sound(np.full(20, 3000)))
        model.line.lose()
        await again(model)
        assert not ear.of(UserTurnEnded)
        model.line.tell(SpeechStarted("v", position=0))
        model.line.tell(UserTurnEnded("v"))
        assert [ended.item_id for ended in ear.of(UserTurnEnded)] == ["v"]


@virtual_time
async def test_a_late_transcript_goes_before_its_reply_although_the_next_connection_has_spoken():
    model = Model()
    async with living(model) as ear:
        model.send_audio(sound(np.full(900, 1000)))
        spoken = ReplyAudio("r", "i", sound(np.full(100, 5)))
        for output in (SpeechStarted("u", position=0), UserTurnEnded("u"), ReplyStarted("r")):
            model.line.tell(output)
        model.line.tell(spoken)
        ear.said["r"] = "Well,"
        question = UserItem("u", "Who are you?")
        ear.items = (question, AgentItem("a", "Well,"))
        model.line.lose()
        await again(model)
        for output in (SpeechStarted("v", position=0), UserTurnEnded("v"), ReplyStarted("x")):
            model.line.tell(output)
        model.line.tell(ReplyDone("x", "cancelled"))
        (asked,) = model.line.sent(RequestReply)
        model.line.tell(ReplyStarted("s", asked.request_id))
        model.line.tell(replace(spoken, reply_id="s"))
        model.line.tell(UserTranscript("v", "Who are you?", final=True))
        assert model.line.commands[-2:] == [DeleteItem("v"), AddItem(question, before=("a",))]
