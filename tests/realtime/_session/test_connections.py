import asyncio
from dataclasses import replace

import numpy as np
import pytest
from fake_connection import (
    FATAL,
    LOST,
    FakeModel,
    FakeObserver,
    audio_frame,
    live_session,
    wait_reconnected,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue._companding import expand
from duologue.audio import AudioFrame
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
    CancelReply,
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
from duologue.realtime.stats import ConnectionStats
from duologue.testing import virtual_time


@virtual_time
async def test_a_lost_connection_is_replaced():
    model = FakeModel()
    item = UserItem("u", "hello")
    async with live_session(model) as observer:
        observer.items = (item,)
        model.latest.lose()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert model.alive
        assert not model.connected
        await asyncio.sleep(0.3)
        assert model.connected
        assert model.latest.setup == SessionSetup("be kind", (), (item,))
        assert 0.1 <= model.at[1] - model.at[0] <= 0.2
        (reconnecting,) = observer.of(RealtimeReconnectingEvent)
        assert reconnecting == RealtimeReconnectingEvent("the connection broke", 1)
        (reconnected,) = observer.of(RealtimeReconnectedEvent)
        assert reconnected.outcome == "replayed"
        assert reconnected.lost_ms == 0
        assert 100 <= reconnected.gap_ms <= 200
        model.latest.emit(Usage({}, {}))
        model.opened[0].emit(Usage({}, {}))
        assert len(observer.of(Usage)) == 1


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
        model = FakeModel([{}, plan], **abilities)
        async with live_session(model) as observer:
            observer.items = (UserItem("u", "hello"),)
            model.latest.lose()
            await wait_reconnected(model)
            assert observer.of(RealtimeReconnectedEvent)[0].outcome == outcome

    run()


@virtual_time
async def test_attempts_back_off_and_end():
    policy = ReconnectPolicy(max_attempts=6, base_s=0.2, cap_s=1.0)
    model = FakeModel([{}, {"fails": SessionError("no route", kind=ErrorKind.RETRY)}], policy)
    observer = FakeObserver()
    task = asyncio.create_task(model.run(SessionSetup(), observer))
    await model.ready()
    model.request_reply("q")
    model.latest.lose()
    with pytest.raises(SessionError, match="no route"):
        await task
    waits = np.diff(model.at)
    assert len(waits) == 6
    for wait, longest in zip(waits, (0.2, 0.4, 0.8, 1, 1, 1), strict=True):
        assert longest / 2 <= wait <= longest
    reported = observer.of(RealtimeReconnectingEvent)
    assert [event.attempt for event in reported] == [1, 2, 3, 4, 5, 6]
    assert reported[-1].reason == "no route"
    assert isinstance(observer.reported[-2], tuple)
    assert isinstance(observer.reported[-2][1], SessionClosedError)
    assert observer.reported[-1].clean is False
    assert not model.alive


@virtual_time
async def test_the_first_connection_is_tried_less_often_and_never_after_a_fatal_error():
    for failure, tries in ((LOST, 3), (FATAL, 1)):
        model = FakeModel([{"fails": failure}])
        with pytest.raises(SessionError, match=str(failure)):
            await model.run(SessionSetup(), FakeObserver())
        assert len(model.opened) == tries
    model = FakeModel([{}, {"fails": FATAL}])
    task = asyncio.create_task(model.run(SessionSetup(), FakeObserver()))
    await model.ready()
    model.latest.lose()
    with pytest.raises(SessionError, match="wrong key"):
        await task
    assert len(model.opened) == 2


@virtual_time
async def test_a_connection_that_never_begins_is_abandoned():
    model = FakeModel(
        [{"starts_after": 100.0}], ReconnectPolicy(connect_timeout_s=2.0, first_attempts=2)
    )
    with pytest.raises(SessionError, match="within 2 s"):
        await model.run(SessionSetup(), FakeObserver())
    assert len(model.opened) == 2
    assert all(connection.closed for connection in model.opened)


@virtual_time
async def test_connections_that_end_as_soon_as_they_begin_do_not_spin():
    model = FakeModel()
    async with live_session(model):
        for _ in range(8):
            model.latest.lose()
            await wait_reconnected(model, len(model.opened) + 1)
        waits = np.diff(model.at)
        assert waits[0] < 0.21
        assert waits[-1] > 4
        await asyncio.sleep(5)
        model.latest.lose()
        await wait_reconnected(model, len(model.opened) + 1)
        assert model.at[-1] - model.at[-2] < 5.3


@virtual_time
async def test_a_clean_end_of_the_connection_ends_the_session():
    model = FakeModel()
    observer = FakeObserver()
    task = asyncio.create_task(model.run(SessionSetup(), observer))
    await model.ready()
    model.latest.ended.set()
    await task
    assert observer.reported[-1].clean
    assert len(model.opened) == 1


@virtual_time
async def test_an_error_of_the_provider_may_end_the_connection_only():
    model = FakeModel()
    async with live_session(model) as observer:
        with pytest.raises(SessionError):
            model.latest.emit(ProviderError(ErrorKind.RECYCLE, "session_expired", "too old"))
        assert not observer.of(ProviderError)


SAMPLES = expand(np.random.default_rng(1).integers(30, 128, 10000).astype(np.uint8))
"""Samples that packing does not change, in an order that shows where each belongs."""


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_sample_is_in_exactly_one_turn(data):
    """Whatever happens between the turns, each sample is in one turn that counts."""

    @virtual_time
    async def run():
        model = FakeModel(policy=ReconnectPolicy(keep_s=10.0), user_transcripts="final")
        async with live_session(model):
            safe, count, item, expected = 0, 0, 0, 0
            began = None
            for _ in range(data.draw(st.integers(1, 25))):
                match data.draw(st.sampled_from(["sound", "lose", "start", "end", "words"])):
                    case "sound":
                        numbers = np.arange(count, count + data.draw(st.integers(1, 300)))
                        count += len(numbers)
                        model.send_audio(audio_frame(SAMPLES[numbers]))
                    case "lose":
                        if model.connected:
                            began = None
                            expected = safe
                            model.latest.lose()
                            await asyncio.sleep(data.draw(st.sampled_from([0.01, 1.0])))
                            continue
                    case "start" if model.connected and began is None:
                        began = item
                        model.latest.emit(SpeechStarted(f"{item}", position=0))
                        item += 1
                    case "end" if model.connected and began is not None:
                        position = len(model.latest.received)
                        turn = UserTurnEnded(f"{began}", reply_follows=False, position=position)
                        model.latest.emit(turn)
                    case "words" if model.connected and began is not None:
                        # The turn is in the history as text, so its audio is not sent again.
                        position = len(model.latest.received)
                        turn = UserTurnEnded(f"{began}", reply_follows=False, position=position)
                        model.latest.emit(turn)
                        model.latest.emit(UserTranscript(f"{began}", "words", final=True))
                        safe = count
                        began = None
                await asyncio.sleep(0.01)
            await asyncio.sleep(20)
            assert model.lost_audio == 0
            assert [*model.latest.received] == SAMPLES[expected:count].tolist()

    run()


@virtual_time
async def test_audio_of_a_long_gap_is_lost_and_counted():
    model = FakeModel([{}, {"starts_after": 5.0}], ReconnectPolicy(keep_s=2.0))
    async with live_session(model) as observer:
        model.send_audio(audio_frame(np.full(500, 1000)))
        model.latest.emit(SpeechStarted("u", position=0))
        model.latest.lose()
        for _ in range(30):
            await asyncio.sleep(0.1)
            model.send_audio(audio_frame(np.full(100, 1000)))
        await wait_reconnected(model)
        assert model.lost_audio == 1500
        assert observer.of(RealtimeReconnectedEvent)[0].lost_ms == 1500
        assert len(model.latest.received) == 2000


@virtual_time
async def test_turns_without_a_transcript_are_replayed():
    model = FakeModel()
    async with live_session(model) as observer:
        model.send_audio(audio_frame(np.full(900, 1000)))
        model.latest.emit(SpeechStarted("u", position=100))
        model.latest.emit(UserTurnEnded("u", position=700))
        model.latest.emit(ReplyStarted("r"))
        model.latest.lose()
        await wait_reconnected(model)
        assert ("u",) in observer.reported
        assert observer.lost == [("r", None)]
        assert not model.latest.sent(RequestReply)
        assert len(model.latest.received) == 900


@virtual_time
async def test_a_reply_that_had_not_begun_is_requested_again():
    model = FakeModel()
    async with live_session(model):
        model.latest.emit(SpeechStarted("u", position=0))
        model.latest.emit(UserTurnEnded("u", position=0))
        model.latest.emit(UserTranscript("u", "hello", final=True))
        model.latest.lose()
        await wait_reconnected(model)
        assert len(model.latest.sent(RequestReply)) == 1
        assert model.replying


@virtual_time
async def test_requests_survive_in_order():
    model = FakeModel()
    async with live_session(model) as observer:
        model.request_reply("a", "sing")
        model.say("b", "words")
        model.latest.lose()
        await asyncio.sleep(0.01)
        model.request_reply("c")
        await wait_reconnected(model)
        connection = model.latest
        for request_id in "abc":
            assert connection.commands[-1].request_id == request_id
            connection.emit(ReplyStarted(request_id, request_id))
            connection.emit(ReplyDone(request_id))
        assert connection.sent(RequestReply)[0] == RequestReply("a", "sing")
        assert not [t for t in observer.reported if isinstance(t, tuple)]


@pytest.mark.parametrize("spoken", [None, "I am"])
def test_a_reply_that_broke_off_continues(spoken):
    @virtual_time
    async def run():
        model = FakeModel()
        async with live_session(model) as observer:
            model.request_reply("q", "sing")
            model.latest.emit(ReplyStarted("r", "q"))
            observer.spoken["r"] = spoken
            model.latest.lose()
            await wait_reconnected(model)
            (requested,) = model.latest.commands
            assert observer.lost == [("r", requested.request_id)]
            assert requested.instructions == (
                "sing" if spoken is None else f"sing\n\n{CONTINUE_PROMPT}"
            )
            model.latest.emit(ReplyStarted("r2", requested.request_id))
            model.latest.lose()
            await wait_reconnected(model, 3)
            assert model.latest.commands[0].instructions.startswith("sing")

    run()


@pytest.mark.parametrize(
    ("spoken", "rest"),
    [
        (None, "one two three"),
        ("one two", "three"),
        ("uno", "one two three"),
        ("one two three", ""),
    ],
)
def test_scripted_text_continues_where_it_stopped(spoken, rest):
    @virtual_time
    async def run():
        model = FakeModel()
        async with live_session(model) as observer:
            model.say("q", "one two three")
            model.latest.emit(ReplyStarted("r", "q"))
            observer.spoken["r"] = spoken
            model.latest.lose()
            await wait_reconnected(model)
            assert [c.text for c in model.latest.sent(Say)] == ([rest] if rest else [])
            assert [r for r, _ in observer.lost] == ["r"]

    run()


@virtual_time
async def test_an_interruption_without_a_connection():
    model = FakeModel([{}, {"starts_after": 1.0}])
    async with live_session(model) as observer:
        model.request_reply("q")
        model.latest.emit(ReplyStarted("r", "q"))
        model.latest.lose()
        await asyncio.sleep(0.5)
        observer.truncations = [Truncate("i", 10, "x")]
        assert model.interrupt() == 1
        await wait_reconnected(model)
        assert not model.latest.commands
        assert not model.pending


@virtual_time
async def test_tool_results_reach_the_next_connection():
    model = FakeModel([{}, {"starts_after": 1.0}])
    async with live_session(model) as observer:
        model.latest.emit(ReplyStarted("r"))
        model.latest.emit(ToolCall("r", "c1", "t", "{}"))
        model.latest.emit(ToolCall("r", "c2", "t", "{}"))
        model.send_tool_result("c1", "t", "1", failed=False)
        model.latest.lose()
        await asyncio.sleep(0.5)
        assert observer.lost == [("r", None)]
        model.send_tool_result("c2", "t", "2", failed=False)
        observer.items = (ToolResultItem("x", "c2", "2"),)
        await wait_reconnected(model)
        assert model.latest.sent(AddItem) == [AddItem(observer.items[0])]
        assert len(model.latest.sent(RequestReply)) == 1


@virtual_time
async def test_changes_during_a_connect_reach_the_new_connection():
    before = (UserItem("a", "one"), AgentItem("b", "two"), UserItem("c", "three"))
    model = FakeModel([{}, {"starts_after": 1.0}])
    async with live_session(model, before) as observer:
        model.latest.lose()
        await asyncio.sleep(0.5)
        assert model.latest.setup.history == before
        observer.items = (before[0], AgentItem("b", "tw", "cut", 10), UserItem("d", "four"))
        model.add_item(observer.items[-1])
        model.update_instructions("be brief")
        model.update_tools([])
        await wait_reconnected(model)
        assert model.latest.commands == [
            DeleteItem("c"),
            Truncate("b", 10, "tw"),
            AddItem(observer.items[-1]),
            UpdateSession(instructions="be brief"),
        ]
        model.latest.lose()
        await wait_reconnected(model, 3)
        assert model.latest.setup.instructions == "be brief"


@virtual_time
async def test_the_end_of_a_manual_turn_is_sent_again():
    model = FakeModel(manual_turns=True, turn_reply="requested")
    async with live_session(model):
        model.send_audio(audio_frame(np.full(300, 1000)))
        model.end_turn()
        model.send_audio(audio_frame(np.full(100, 1000)))
        model.latest.lose()
        await wait_reconnected(model)
        kinds = [type(c).__name__ for c in model.latest.commands]
        assert kinds == ["SendAudio"] * 3 + ["EndTurn", "SendAudio"]
        model.latest.emit(UserTurnEnded("u", reply_follows=False))
        assert model.latest.sent(RequestReply)
        model.latest.emit(UserTranscript("u", "hi", final=True))
        model.latest.lose()
        await wait_reconnected(model, 3)
        assert len(model.latest.received) == 100
        assert not model.latest.sent(EndTurn)


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.3, 0.6, 1.2, 1.9])
def test_a_session_closes_in_every_state(seconds):
    @virtual_time
    async def run():
        model = FakeModel([{"starts_after": 0.2}, {"starts_after": 0.4}, {"starts_after": 0.4}])
        observer = FakeObserver()
        task = asyncio.create_task(model.run(SessionSetup(), observer))
        loop = asyncio.get_running_loop()
        loop.call_later(0.25, lambda: model.latest.lose())
        loop.call_later(1.0, lambda: model.alive and model.roll_over())
        await asyncio.sleep(seconds)
        began = loop.time()
        task.cancel()
        await asyncio.wait([task])
        assert loop.time() - began < 1
        assert all(connection.closed for connection in model.opened)
        assert model._session.connections.state is SessionState.CLOSED
        assert [t.reason for t in observer.reported if hasattr(t, "clean")] == ["closed"]
        assert len(asyncio.all_tasks()) == 1

    run()


@virtual_time
async def test_illegal_transitions_raise():
    model = FakeModel()
    with pytest.raises(SessionClosedError):
        model.roll_over()
    with pytest.raises(RuntimeError, match="can't be"):
        model._session.connections._transition(SessionState.ROLLING_OVER)
    async with live_session(model):
        with pytest.raises(RuntimeError, match="live can't be connecting"):
            model._session.connections._transition(SessionState.CONNECTING)
    once = FakeModel()
    once._session.connections.reconnects = False
    async with live_session(once):
        once.latest.emit(GoAway(1.0))
        with pytest.raises(UnsupportedError):
            once.roll_over()
        await asyncio.sleep(5)
        assert len(once.opened) == 1


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
    model = FakeModel()
    observer = FakeObserver()
    task = asyncio.create_task(model.run(SessionSetup(), observer))
    await model.ready()
    model.latest.lose(KeyError("x"))
    with pytest.raises(KeyError):
        await task
    assert len(model.opened) == 1


@virtual_time
async def test_a_reply_that_is_being_spoken_continues_with_audio():
    model = FakeModel()
    async with live_session(model) as observer:
        model.latest.emit(ReplyStarted("r"))
        model.latest.emit(ReplyAudio("r", "i", audio_frame([1] * 10)))
        model.interrupt()
        model.latest.lose()
        await wait_reconnected(model)
        assert not observer.lost
        assert not model.latest.sent(RequestReply)


@virtual_time
async def test_a_manual_turn_that_has_its_reply_delays_nothing():
    model = FakeModel(manual_turns=True, turn_reply="requested")
    async with live_session(model) as observer:
        model.send_audio(audio_frame(np.full(300, 1000)))
        model.end_turn()
        model.latest.emit(UserTurnEnded("u", reply_follows=False))
        requested = model.latest.sent(RequestReply)[0].request_id
        model.latest.emit(ReplyStarted("r", requested))
        model.latest.emit(ReplyAudio("r", "i", audio_frame([1] * 10)))
        model.latest.emit(ReplyDone("r"))
        model.latest.lose()
        await wait_reconnected(model)
        model.request_reply("next")
        assert not model.latest.sent(RequestReply)
        reported = len(observer.reported)
        model.latest.emit(UserTurnEnded("u2", reply_follows=False))
        assert [c.request_id for c in model.latest.sent(RequestReply)] == ["next"]
        assert len(observer.reported) == reported
        words = UserTranscript("u2", "hi", final=True)
        model.latest.emit(words)
        assert observer.reported[-1] == UserTranscript("u", "hi", final=True)


@virtual_time
async def test_a_manual_turn_gets_a_reply_unless_it_was_empty():
    model = FakeModel(manual_turns=True, turn_reply="requested", speech_detection="none")
    async with live_session(model):
        for empty, requested in ((True, 0), (False, 1)):
            model.end_turn()
            model.latest.emit(UserTurnEnded("turn", reply_follows=False, empty=empty))
            assert len(model.latest.sent(RequestReply)) == requested


@virtual_time
async def test_a_turn_whose_audio_is_dropped_in_an_outage_ends():
    policy = ReconnectPolicy(base_s=0.01, cap_s=0.01, keep_s=3.0)
    model = FakeModel([{}, {"starts_after": 6.0}], policy)
    async with live_session(model) as observer:
        model.latest.emit(SpeechStarted("u", position=0))
        for level, seconds in ((3000, 1.0), (0, 5.0)):
            for _ in range(round(seconds * 50)):
                await asyncio.sleep(0.02)
                model.send_audio(audio_frame(np.full(20, level)))
                if len(model.opened) == 1 and not model.latest.ended.is_set():
                    model.latest.lose()
        await wait_reconnected(model)
        (ended,) = observer.of(UserTurnEnded)
        assert ended == UserTurnEnded("u", None, reply_follows=False, empty=True)
        assert isinstance(observer.reported[-1], UserTurnEnded)
        model.latest.lose()
        await wait_reconnected(model, 3)
        assert len(observer.of(UserTurnEnded)) == 1


@virtual_time
async def test_a_reported_transcript_stays_when_the_audio_of_its_turn_is_dropped():
    policy = ReconnectPolicy(base_s=0.01, cap_s=0.01, keep_s=2.0)
    model = FakeModel([{}, {"starts_after": 4.0}], policy)
    async with live_session(model) as observer:
        model.latest.emit(SpeechStarted("u", position=0))
        model.latest.emit(UserTranscript("u", "hello", final=False))
        model.latest.emit(UserTranscript("u", "hello there", final=False))
        model.latest.lose()
        for _ in range(150):
            await asyncio.sleep(0.02)
            model.send_audio(audio_frame(np.zeros(20)))
        await wait_reconnected(model)
        assert observer.reported[-2:] == [
            UserTranscript("u", "hello there", final=True),
            UserTurnEnded("u", None, reply_follows=False),
        ]


@virtual_time
async def test_a_turn_whose_audio_is_replayed_continues():
    model = FakeModel([{}, {"starts_after": 1.0}], ReconnectPolicy(base_s=0.01, cap_s=0.01))
    async with live_session(model) as observer:
        model.latest.emit(SpeechStarted("u", position=0))
        for _ in range(20):
            await asyncio.sleep(0.02)
            model.send_audio(audio_frame(np.full(20, 3000)))
        model.latest.lose()
        await wait_reconnected(model)
        assert not observer.of(UserTurnEnded)
        model.latest.emit(SpeechStarted("v", position=0))
        model.latest.emit(UserTurnEnded("v"))
        assert [ended.item_id for ended in observer.of(UserTurnEnded)] == ["v"]


@virtual_time
async def test_a_late_transcript_goes_before_its_reply_although_the_next_connection_has_spoken():
    model = FakeModel()
    async with live_session(model) as observer:
        model.send_audio(audio_frame(np.full(900, 1000)))
        spoken = ReplyAudio("r", "i", audio_frame(np.full(100, 5)))
        for output in (SpeechStarted("u", position=0), UserTurnEnded("u"), ReplyStarted("r")):
            model.latest.emit(output)
        model.latest.emit(spoken)
        observer.spoken["r"] = "Well,"
        question = UserItem("u", "Who are you?")
        observer.items = (question, AgentItem("a", "Well,"))
        model.latest.lose()
        await wait_reconnected(model)
        for output in (SpeechStarted("v", position=0), UserTurnEnded("v"), ReplyStarted("x")):
            model.latest.emit(output)
        model.latest.emit(ReplyDone("x", "cancelled"))
        (requested,) = model.latest.sent(RequestReply)
        model.latest.emit(ReplyStarted("s", requested.request_id))
        model.latest.emit(replace(spoken, reply_id="s"))
        model.latest.emit(UserTranscript("v", "Who are you?", final=True))
        assert model.latest.commands[-2:] == [DeleteItem("v"), AddItem(question, before=("a",))]


@pytest.mark.parametrize("text_first", [True, False])
def test_a_detected_turn_that_is_replayed_ends_once_and_gets_one_reply(text_first):
    @virtual_time
    async def run():
        policy = ReconnectPolicy(base_s=0.01, cap_s=0.01)
        model = FakeModel(policy=policy, speech_detection="local", confirms_cancel=False)
        async with live_session(model) as observer:
            for level in [3000] * 50 + [0] * 25:
                await asyncio.sleep(0.02)
                wave = np.tile(np.repeat([level, -level], 80), 2).astype(np.int16)
                model.send_audio(AudioFrame(wave, 16000))
            for output in (ReplyStarted("r"), ReplyAudio("r", "i", audio_frame([5] * 10))):
                model.latest.emit(output)
            model.latest.emit(ReplyDone("r"))
            (ended,) = observer.of(UserTurnEnded)
            model.latest.lose()
            await wait_reconnected(model)
            outputs = [UserTranscript("piece", "hello", final=False), ReplyStarted("s")]
            for output in outputs if text_first else reversed(outputs):
                model.latest.emit(output)
            model.latest.emit(ReplyDone("s"))
            assert model.latest.sent(CancelReply) == [CancelReply("s")]
            assert observer.of(UserTurnEnded) == [ended]
            transcripts = observer.of(UserTranscript)
            assert transcripts == [UserTranscript(ended.item_id, "hello", final=True)]

    run()


@virtual_time
async def test_counters_of_all_connections_are_added_up():
    model = FakeModel()
    supervisor = model._session.connections
    assert supervisor.stats() == ConnectionStats()
    async with live_session(model):
        model.latest.stats = lambda: ConnectionStats(unknown_messages=3, dropped_images=1)
        assert supervisor.stats() == ConnectionStats(unknown_messages=3, dropped_images=1)
        model.latest.lose()
        for _ in range(5):  # Also between its end and the moment when the supervisor notices.
            await asyncio.sleep(0)
            assert supervisor.stats() == ConnectionStats(unknown_messages=3, dropped_images=1)
        await wait_reconnected(model)
        model.latest.stats = lambda: ConnectionStats(unknown_messages=4)
        assert supervisor.stats() == ConnectionStats(unknown_messages=7, dropped_images=1)


@virtual_time
async def test_a_connection_that_ends_before_it_begins_is_tried_again():
    model = FakeModel([{"begins": False}, {}])
    async with live_session(model):
        assert len(model.opened) == 2


@virtual_time
async def test_connections_that_all_end_before_they_begin_end_the_session():
    model = FakeModel([{"begins": False}], ReconnectPolicy(first_attempts=2))
    with pytest.raises(SessionError, match="ended the session before it began"):
        await model.run(SessionSetup(), FakeObserver())
    assert len(model.opened) == 2


@pytest.mark.parametrize("failure", [KeyError("x"), asyncio.CancelledError("library")])
def test_a_bug_while_connecting_is_raised_unchanged_and_not_retried(failure):
    @virtual_time
    async def run():
        model = FakeModel([{"fails": failure}])
        observer = FakeObserver()
        with pytest.raises(type(failure)) as caught:
            await model.run(SessionSetup(), observer)
        assert caught.value is failure
        assert len(model.opened) == 1
        assert len(observer.reported) == 1

    run()


@virtual_time
async def test_a_session_without_reconnects_ends_with_its_connection():
    model = FakeModel()
    model._session.connections.reconnects = False
    observer = FakeObserver()
    task = asyncio.create_task(model.run(SessionSetup(), observer))
    await model.ready()
    model.latest.lose()
    with pytest.raises(SessionError, match="the connection broke"):
        await task
    assert len(model.opened) == 1
    assert not observer.of(RealtimeReconnectingEvent)


@virtual_time
async def test_a_failed_connection_is_replaced_and_its_error_is_the_reason():
    model = FakeModel()
    supervisor = model._session.connections
    silent = SessionError("no sign of life", kind=ErrorKind.RECYCLE)
    supervisor.fail(silent)  # There is no connection yet, so nothing happens.
    async with live_session(model) as observer:
        supervisor.fail(silent)
        await wait_reconnected(model)
        assert model.opened[0].closed
        (reconnecting,) = observer.of(RealtimeReconnectingEvent)
        assert reconnecting == RealtimeReconnectingEvent("no sign of life", 1)
        model.latest.lose()
        await asyncio.sleep(0)
        supervisor.fail(silent)  # It is over already: its own error stays the reason.
        await wait_reconnected(model, 3)
        assert observer.of(RealtimeReconnectingEvent)[-1].reason == str(LOST)
