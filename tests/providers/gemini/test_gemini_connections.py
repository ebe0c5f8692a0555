"""Gemini's connections: how they begin, end, and follow one another without a loss."""

import asyncio
import json
import logging
import socket
from collections import deque
from contextlib import asynccontextmanager, suppress

import numpy as np
import pytest
from gemini_codec_harness import encoded
from gemini_scene import POLICY, Backend, conversation, now, realtime, sent, texts, until, virtual
from websockets.asyncio.server import serve

from duologue.errors import ErrorKind, SessionError
from duologue.events import (
    ErrorEvent,
    InterruptionEvent,
    RealtimeDisconnectedEvent,
    RealtimeReconnectedEvent,
    RealtimeReconnectingEvent,
    UserTurnEndedEvent,
)
from duologue.items import UserItem
from duologue.providers import gemini, openai, qwen
from duologue.realtime.commands import EndTurn, SendAudio
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.simulators.faults import Close, Fault
from duologue.testing import GeminiSimulator, Reply
from duologue.video import VideoFrame
from fake_edge import FakeEdge, agent_items, events_of, join_agent, tone

LONG = " ".join(f"word{index}" for index in range(40))


def heard_s(server):
    """Return the seconds of input audio that the service got, on all connections."""
    return sum(session.audio_in_samples for session in server.sessions) / 16000


# A minimal service


@asynccontextmanager
async def service(answer):
    """Serve each WebSocket with ``answer``; yield the base address."""
    async with serve(answer, "127.0.0.1", 0) as running:
        port = next(iter(running.sockets)).getsockname()[1]
        yield f"http://127.0.0.1:{port}"


def plain(url, **options):
    options.setdefault("reconnect", POLICY)
    return gemini.Realtime(base_url=url, api_key="k", **options)


async def begins(websocket):
    await websocket.recv()
    await websocket.send(json.dumps({"setupComplete": {}}).encode())


@pytest.mark.parametrize(
    ("code", "reason", "kind", "tries"),
    [
        (1008, "models/x is not found", ErrorKind.FATAL, 1),
        (1011, "Internal error encountered.", ErrorKind.RECYCLE, 3),
        (1000, "", ErrorKind.RECYCLE, 3),
    ],
)
@virtual
async def test_a_close_before_the_session_is_reported_with_its_reason(code, reason, kind, tries):
    asked = []

    async def answer(websocket):
        asked.append(await websocket.recv())
        await websocket.close(code, reason)

    async with service(answer) as url:
        with pytest.raises(SessionError) as caught:
            async with join_agent(plain(url)):
                pass
    assert (
        str(caught.value) == f"{reason or 'the server closed the connection'} (close code {code})"
    )
    assert (caught.value.kind, caught.value.code) == (kind, str(code))
    assert len(asked) == tries


@pytest.mark.parametrize("module", [gemini, openai, qwen])
@virtual
async def test_no_log_contains_the_key(module, caplog):
    caplog.set_level(logging.DEBUG)
    key = "sk-this-is-the-key-of-somebody"
    options = {"transport": "websocket"} if module is openai else {}
    asked = []

    async def answer(websocket):
        asked.append(websocket.request.headers)
        await websocket.close(1008, "models/x is not found")

    async with service(answer) as url:
        policy = ReconnectPolicy(first_attempts=1)
        model = module.Realtime(base_url=url, api_key=key, reconnect=policy, **options)
        with pytest.raises(SessionError):
            async with join_agent(model):
                pass
    assert any(key in value for headers in asked for value in headers.values())
    mine = [record for record in caplog.records if record.name != "websockets.server"]
    assert not [record for record in mine if key in record.getMessage()]


@virtual
async def test_a_close_before_the_setup_was_sent():
    async def answer(websocket):
        await websocket.close(1011, "not today")

    async with service(answer) as url:
        with pytest.raises(SessionError, match=r"^not today \(close code 1011\)$"):
            async with join_agent(plain(url)):
                pass


@pytest.mark.parametrize(
    ("status", "tries"), [("PERMISSION_DENIED", 1), ("INTERNAL", 3), ("BRAND_NEW", 3)]
)
@virtual
async def test_an_error_as_the_first_message_is_reported(status, tries):
    asked = []

    async def answer(websocket):
        asked.append(await websocket.recv())
        error = {"code": 7, "message": "Not for you,\nsorry.", "status": status}
        await websocket.send(json.dumps({"error": error}))
        await websocket.wait_closed()

    async with service(answer) as url:
        began = now()
        with pytest.raises(SessionError) as caught:
            async with join_agent(plain(url)):
                pass
        assert now() - began < 2
    assert str(caught.value) == "Not for you, sorry."
    assert caught.value.code == status
    assert len(asked) == tries


@virtual
async def test_a_silent_service_is_given_up_in_time():
    async def answer(websocket):
        await websocket.wait_closed()

    policy = ReconnectPolicy(first_attempts=1, connect_timeout_s=3.0)
    async with service(answer) as url:
        with pytest.raises(SessionError, match="did not begin the session within 3 s"):
            async with join_agent(plain(url, reconnect=policy)):
                pass


@virtual
async def test_a_message_of_more_than_a_megabyte_is_accepted():
    samples = (tone(20.0) // 2).astype("<i2")
    assert samples.nbytes > 900_000

    async def answer(websocket):
        await begins(websocket)
        async for message in websocket:
            if b"clientContent" in message.encode():
                break
        blob = {"mimeType": "audio/pcm;rate=24000", "data": encoded(samples.tobytes())}
        turn = {"modelTurn": {"parts": [{"inlineData": blob}]}, "generationComplete": True}
        message = json.dumps({"serverContent": turn}).encode()
        assert len(message) > 1 << 20
        await websocket.send(message)
        await websocket.wait_closed()

    async with service(answer) as url:
        phone = FakeEdge()
        async with join_agent(plain(url), phone) as agent:
            speech = await agent.simple_response("Go.")
            assert speech.played_ms == 20_000
            heard = phone.played_audio[: len(samples)]
            assert np.abs(heard.astype(int) - samples[: len(heard)]).max() < 100


@virtual
async def test_a_dead_connection_is_noticed_by_missing_acknowledgements():
    seen = []

    async def answer(websocket):
        await begins(websocket)
        await websocket.wait_closed()

    async with service(answer) as url, join_agent(plain(url)) as agent:
        connection = agent.llm._session.connections.current.connection
        line = connection._nonblocking_wire._protocol._transport
        option = getattr(socket, "TCP_USER_TIMEOUT", None)
        if option is None:
            pytest.skip("this system can't")
        raw = line.get_extra_info("socket")
        seen.append(raw.getsockopt(socket.IPPROTO_TCP, option))
    assert seen == [8000]


# Resumption and replay


@virtual
async def test_a_lost_connection_is_resumed():
    async with conversation(["One.", "Two."], ["first", "second"]) as (agent, person, server):
        await person.speak(0.5)
        await asyncio.sleep(4)
        await server.kill()
        await asyncio.sleep(2)
        (event,) = events_of(agent, RealtimeReconnectedEvent)
        assert (event.outcome, event.lost_ms) == ("restored", 0)
        assert server.sessions[-1].resumed
        assert server.sessions[-1].setup["sessionResumption"]["handle"]
        await person.speak(0.5)
        await asyncio.sleep(4)
        known = [("user", "first"), ("model", "One."), ("user", "second"), ("model", "Two.")]
        assert texts(server.sessions[-1]) == known
        assert agent.llm.lost_audio == 0
        assert not events_of(agent, ErrorEvent)


@pytest.mark.parametrize("model", ["gemini-3.8-live", "gemini-3.1-flash-live-preview"])
@virtual
async def test_a_stale_handle_is_followed_by_the_history_and_reported(model):
    async with conversation(["One.", "Two."], ["first", "second"], model=model) as (
        agent,
        person,
        server,
    ):
        await person.speak(0.5)
        await asyncio.sleep(4)
        server.forget_handles()
        await server.kill()
        await asyncio.sleep(3)
        (event,) = events_of(agent, RealtimeReconnectedEvent)
        assert (event.outcome, event.lost_ms) == ("replayed", 0)
        assert not server.sessions[-1].resumed
        # If the history was announced, it was also sent.
        assert server.sessions[-1].setup["historyConfig"] == {"initialHistoryInClientContent": True}
        assert texts(server.sessions[-1]) == [("user", "first"), ("model", "One.")]
        await person.speak(0.5)
        await asyncio.sleep(4)
        assert [item.text for item in agent.conversation] == ["first", "One.", "second", "Two."]
        assert agent.llm.lost_audio == 0
        assert not events_of(agent, ErrorEvent)


@virtual
async def test_a_connection_lost_while_resuming_does_not_cost_the_handle():
    async with conversation(["One."]) as (agent, _person, server):
        await agent.simple_response("first")
        await asyncio.sleep(3)
        server.faults = [Fault(Close(1012, "service restart"), on="setup", times=2)]
        await server.kill()
        await asyncio.sleep(5)
        assert len(server.fired_actions) == 2
        (event,) = events_of(agent, RealtimeReconnectedEvent)
        assert event.outcome == "restored"


@virtual
async def test_a_full_context_is_not_resumed():
    async with conversation(["One.", "Two."]) as (agent, _person, server):
        await agent.simple_response("first")
        await asyncio.sleep(3)
        reason = "The input token count (131073) exceeds the maximum number of tokens allowed"
        server.faults = [Fault(Close(1007, reason), at=0.0)]
        await asyncio.sleep(3)
        (event,) = events_of(agent, RealtimeReconnectedEvent)
        assert event.outcome == "replayed"
        assert (await agent.simple_response("second")).heard_text == "Two."


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("deadline", "Deadline expired"),
        ("expired", "after receiving a GoAway"),
        ("unavailable", ""),
    ],
)
@virtual
async def test_a_transient_close_is_followed_by_the_next_connection(fault, words):
    async with conversation(["One."], ["first"], simulator={"faults": [fault]}) as (
        agent,
        person,
        server,
    ):
        await asyncio.sleep(4)
        assert server.fired_actions
        assert words in events_of(agent, RealtimeReconnectingEvent)[0].reason
        assert events_of(agent, RealtimeReconnectedEvent)[0].outcome == "restored"
        await person.speak(0.5)
        await asyncio.sleep(3)
        assert [item.text for item in agent.conversation] == ["first", "One."]
        assert not events_of(agent, ErrorEvent)


@virtual
async def test_a_refusal_in_mid_session_costs_no_more_than_a_connection():
    faults = [Fault(Close(1008, "Requested entity was not found."), at=30.0, times=4)]
    async with conversation(["One."], simulator={"faults": faults}) as (agent, _person, server):
        await agent.simple_response("first")
        await asyncio.sleep(100)
        assert len(server.fired_actions) == 3
        assert [event.outcome for event in events_of(agent, RealtimeReconnectedEvent)] == [
            "restored"
        ] * 3
        assert not events_of(agent, ErrorEvent)
        with pytest.raises(SessionError, match="entity was not found") as caught:
            await agent.finish()
        assert caught.value.kind is ErrorKind.FATAL


@virtual
async def test_a_key_that_was_revoked_ends_the_session():
    async with GeminiSimulator(replies=["One."]) as server, join_agent(realtime(server)) as agent:
        await agent.simple_response("first")
        await asyncio.sleep(3)
        server.auth._key = "another"
        began = now()
        await server.kill()
        with pytest.raises(SessionError, match="API key not valid") as caught:
            await agent.finish()
        assert now() - began < 3
        assert caught.value.kind is ErrorKind.FATAL
        (event,) = events_of(agent, RealtimeDisconnectedEvent)
        assert not event.clean


# Going away


@virtual
async def test_go_away_in_silence_is_unnoticeable():
    async with conversation(["One.", "Two."], ["first", "second"]) as (agent, person, server):
        changes = []

        def note(event):
            if isinstance(event, RealtimeReconnectedEvent):
                changes.append((now(), [session.closed for session in server.sessions]))

        agent.events.tap(note)
        await person.speak(0.5)
        await asyncio.sleep(4)
        server.go_away(time_left=10.0)
        began = now()
        await asyncio.sleep(2)
        ((at, closed),) = changes
        assert at - began < 0.5  # Immediately.
        assert closed == [False, False]  # The next connection is open before the last one closes.
        assert server.sessions[0].closed
        (event,) = events_of(agent, RealtimeReconnectedEvent)
        assert (event.outcome, event.lost_ms, event.gap_ms) == ("restored", 0, 0)
        await person.speak(0.5)
        await asyncio.sleep(4)
        assert [item.text for item in agent.conversation] == ["first", "One.", "second", "Two."]
        # Nothing is lost, and after the handle there was only silence to send twice.
        assert heard_s(server) >= person.sent / 16000 - 0.05
        known = [("user", "first"), ("model", "One."), ("user", "second"), ("model", "Two.")]
        assert texts(server.sessions[-1]) == known


@pytest.mark.parametrize("speaks", ["agent", "person"])
@virtual
async def test_go_away_waits_for_the_end_of_speech(speaks):
    text = "This is an answer of some three seconds, no more."
    async with conversation([text], ["first"]) as (agent, person, server):
        if speaks == "person":
            person.level = 8000
            await asyncio.sleep(1)
        else:
            agent.simple_response("Go.")
            await until(lambda: person.at)
        server.go_away(time_left=20.0)
        await asyncio.sleep(1.5)
        assert len(server.sessions) == 1
        person.level = 0
        await asyncio.sleep(8)
        assert len(server.sessions) == 2
        assert agent_items(agent)[-1].text == text
        assert agent_items(agent)[-1].state == "heard"
        (event,) = events_of(agent, RealtimeReconnectedEvent)
        assert (event.lost_ms, event.gap_ms) == (0, 0)
        assert not events_of(agent, InterruptionEvent)
        assert not events_of(agent, ErrorEvent)
        assert [words for _, words in texts(server.sessions[-1])][-1] == text
        assert heard_s(server) >= person.sent / 16000 - 0.05


@virtual
async def test_go_away_in_a_long_reply_continues_the_reply():
    replies = [LONG, "and so on.", "and so on."]
    async with conversation(replies, simulator={"audio_pace": 1.0}) as (agent, person, server):
        speech = agent.simple_response("Tell me.")
        await until(lambda: person.at)
        server.go_away(time_left=4.0)
        await speech
        assert len(server.sessions) == 2
        (event,) = events_of(agent, RealtimeReconnectedEvent)
        assert event.outcome == "restored"
        (item,) = agent_items(agent)
        assert item.state == "heard"
        assert item.text.startswith("word0 word1")
        assert item.text.endswith("and so on.")
        assert not events_of(agent, ErrorEvent)


@virtual
async def test_hours_pass():
    """Two hours, sixty times as fast: ten minutes per connection, no time limit of the session."""
    simulator = {"clock_scale": 60.0, "go_away_s": 120.0}
    replies, words = ["Yes."] * 40, [f"turn {n}" for n in range(40)]
    async with conversation(replies, words, simulator=simulator) as (agent, person, server):
        person.camera = lambda at: VideoFrame(np.zeros((72, 128, 3), np.uint8), at)
        for _ in range(24):
            await person.speak(0.5)
            await asyncio.sleep(4.5)
        assert now() >= 120
        users = [item.text for item in agent.conversation if isinstance(item, UserItem)]
        assert users == words[:24]
        outcomes = [event.outcome for event in events_of(agent, RealtimeReconnectedEvent)]
        assert len(outcomes) >= 10
        assert set(outcomes) == {"restored"}
        assert sum(event.lost_ms for event in events_of(agent, RealtimeReconnectedEvent)) == 0
        assert heard_s(server) >= person.sent / 16000 - 0.05
        known = [text for role, text in texts(server.sessions[-1]) if role == "user"]
        assert known == words[:24]
        assert not events_of(agent, ErrorEvent)


@virtual
async def test_without_compression_an_expired_session_is_followed_by_one_with_its_history():
    simulator = {"clock_scale": 60.0, "go_away_s": 120.0}
    replies, words = ["Yes."] * 20, [f"turn {n}" for n in range(20)]
    async with conversation(replies, words, simulator=simulator, compression=None) as (
        agent,
        person,
        server,
    ):
        for _ in range(8):
            await person.speak(0.5)
            await asyncio.sleep(4.5)
        outcomes = [event.outcome for event in events_of(agent, RealtimeReconnectedEvent)]
        assert "replayed" in outcomes
        assert len(outcomes) < 10
        users = [item.text for item in agent.conversation if isinstance(item, UserItem)]
        assert users == words[:8]
        known = [text for role, text in texts(server.sessions[-1]) if role == "user"]
        assert known == words[:8]
        assert not events_of(agent, ErrorEvent)


# Audio across connections


@pytest.mark.parametrize("moment", [0.2, 0.6, 0.9, 1.2, 2.0])
@virtual
async def test_no_input_audio_is_lost_when_the_connection_is_killed(moment):
    async with conversation(["One."] * 3, ["first"] * 3) as (agent, person, server):
        await asyncio.sleep(1)

        async def kill():
            await asyncio.sleep(moment)
            await server.kill()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(kill())
            await person.speak(0.8)
            await asyncio.sleep(10)
        assert [i.text for i in agent.conversation if isinstance(i, UserItem)] == ["first"]
        assert len(agent_items(agent)) == 1
        assert agent.llm.lost_audio == 0
        assert heard_s(server) >= person.sent / 16000 - 0.05
        assert not events_of(agent, ErrorEvent)


@virtual
async def test_a_kill_after_a_long_silence_loses_nothing():
    async with conversation(["One."], ["first"]) as (agent, person, server):
        await person.speak(0.5)
        await asyncio.sleep(20)
        server.faults = ["down"]
        await server.kill()
        await asyncio.sleep(5)
        (event,) = events_of(agent, RealtimeReconnectedEvent)
        assert (event.outcome, event.lost_ms) == ("restored", 0)
        assert agent.llm.lost_audio == 0


@virtual
async def test_audio_is_sent_unchanged():
    async with conversation(["One."], simulator={"keep_audio": True}) as (_, person, server):
        await asyncio.sleep(0.5)
        sent_ = (6000 * np.sin(np.arange(16000) * 0.15)).astype(np.int16)
        person.speech = sent_
        await asyncio.sleep(3)
        (turn,) = server.sessions[0].user_turns
        begin = int(np.flatnonzero(turn.samples)[0]) - 1
        assert turn.samples[begin : begin + len(sent_)].tolist() == sent_.tolist()


@virtual
async def test_every_connection_asks_for_handles():
    async with conversation(["One."]) as (agent, _person, server):
        await agent.simple_response("first")
        await asyncio.sleep(3)
        for _ in range(3):
            agent.llm.roll_over()
            await asyncio.sleep(2)
        setups = sent(server, "setup")
        assert ["sessionResumption" in setup for setup in setups] == [True] * 4
        handles = [setup["sessionResumption"].get("handle") for setup in setups]
        assert handles[0] is None
        assert len(set(handles)) == 4


# Text outside the turns of a connection


@virtual
async def test_with_manual_turns_a_pause_ends_no_turn():
    options = {"turn_detection": gemini.ManualTurns()}
    async with conversation(["Yes."], ["a table."], **options) as (agent, person, server):
        await person.speak(0.6)
        words = {"serverContent": {"inputTranscription": {"text": " I would like"}}}
        server.sessions[0].emit("serverContent.inputTranscription", words)
        await asyncio.sleep(4)
        assert not events_of(agent, UserTurnEndedEvent)
        await person.speak(0.6)
        agent.llm.end_turn()
        await asyncio.sleep(4)
        assert len(events_of(agent, UserTurnEndedEvent)) == 1
        assert [item.text for item in agent.conversation] == ["I would like a table.", "Yes."]


@pytest.mark.parametrize("words", [" indeed.", "\n"])
@pytest.mark.parametrize("manual", [False, True])
@virtual
async def test_late_text_costs_no_reply_and_no_request(words, manual):
    options = {"turn_detection": gemini.ManualTurns()} if manual else {}
    replies, transcripts = ["One.", "Two.", "Three."], ["first", "second"]
    async with conversation(replies, transcripts, **options) as (agent, person, server):

        async def turn(seconds):
            await person.speak(seconds)
            if manual:
                agent.llm.end_turn()
            await asyncio.sleep(4)

        await turn(0.5)
        session = server.sessions[0]
        late = {"serverContent": {"outputTranscription": {"text": words}}}
        session.emit("serverContent.outputTranscription", late)
        await asyncio.sleep(1)
        assert not agent.llm.pending
        assert agent_items(agent)[0].text == "One." + words.rstrip()
        heard = len(person.at)
        await turn(2.5)
        assert len(person.at) > heard
        assert session.user_turns[1].end - session.user_turns[1].start >= 2.5 * 16000
        began = now()
        assert (await agent.say("Are you there?")).heard_text == "Are you there?"
        assert now() - began < 3
        assert [item.text for item in agent.conversation][2:4] == ["second", "Two."]
        assert not events_of(agent, InterruptionEvent)
        assert not events_of(agent, ErrorEvent)


@virtual
async def test_late_text_of_an_interrupted_reply_does_not_block_the_next_one():
    async with conversation([LONG, "Two."], ["first", "second"]) as (agent, person, server):
        session = server.sessions[0]
        emit, late = session._replies._emit, []

        def emits(kind, message):
            emit(kind, message)
            if kind == "serverContent.turnComplete" and not late:
                words = {"serverContent": {"outputTranscription": {"text": " indeed."}}}
                late.append(emit("serverContent.outputTranscription", words))

        session._replies._emit = emits
        await person.speak(0.5)
        await until(lambda: person.at)
        await asyncio.sleep(1)
        await person.speak(0.5)
        await asyncio.sleep(5)
        assert late
        assert agent.llm.epoch == 1
        assert [item.text for item in agent.conversation][2:] == ["second", "Two."]


class LevelBackend(Backend):
    """Derives the transcript from the level, so that audio sent twice has the same transcript."""

    def open(self, setup):
        connection = super().open(setup)
        transmit, loudest = connection.transmit, [0]

        def listen(command):
            match command:
                case SendAudio(frame=frame):
                    loudest.append(int(frame.samples.max()))
                case EndTurn():
                    self.transcripts = deque(["hello there" if max(loudest) > 5000 else ""])
                    loudest[:] = [0]
            transmit(command)

        connection.transmit = listen
        return connection


@pytest.mark.parametrize("late", [1.0, 2.5])
@pytest.mark.parametrize("lost_after", [1.6, 3.4])
@virtual
async def test_a_transcript_survives_two_lost_connections_before_it_is_final(late, lost_after):
    script = deque(Reply("An answer of many words " * 3, pace=1.5) for _ in range(9))
    simulator = {"backend": lambda: LevelBackend(script, ()), "transcription_delay": late}
    async with conversation(simulator=simulator) as (agent, person, server):
        await asyncio.sleep(0.3)
        await person.speak(1.0)
        await asyncio.sleep(lost_after)
        with suppress(OSError):
            await server.kill()
        await asyncio.sleep(0.7)
        person.level = 3000
        await asyncio.sleep(0.2)
        person.level = 0
        await asyncio.sleep(0.7)
        agent.llm.roll_over()
        await asyncio.sleep(0.02)
        with suppress(OSError):
            await server.kill()
        await asyncio.sleep(25)
        turns = [item.text for item in agent.conversation if isinstance(item, UserItem)]
        assert [text for text in turns if text] == ["hello there"]
        assert turns[0] == "hello there"
