"""Sessions of the simulated Gemini service: start, resumption, limits, and end."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("google.genai", reason="google-genai is not installed")

from gemini_client import connected, raw, setup, silence, started, tone
from google.genai import errors, types
from hypothesis import given
from hypothesis import strategies as st

from duologue.items import AgentItem, UserItem
from duologue.realtime.commands import AddItem, UpdateSession
from duologue.simulators.gemini._conversation import Conversation, Cost
from duologue.simulators.gemini._setup import Compression
from duologue.testing import GeminiSimulator, Reply, ScriptedRealtime, ToolUse, virtual_time

FLASH_31 = "gemini-3.1-flash-live-preview"
SEEDED = {"initial_history_in_client_content": True}
HISTORY = [
    types.Content(role="user", parts=[types.Part(text="My name is Eve.")]),
    types.Content(role="model", parts=[types.Part(text="Hello, Eve.")]),
]
WORDS = [
    {"role": "user", "parts": [{"text": "..."}]},
    {"role": "model", "parts": [{"text": "Yes."}]},
]


def now() -> float:
    return asyncio.get_running_loop().time()


def answering(*replies, **options):
    options.setdefault("tls", True)
    return GeminiSimulator(replies=replies or [Reply("Yes.", seconds=0.2)] * 20, **options)


def handles(client) -> list[str | None]:
    """Return the received handles; None for an update that says "not resumable"."""
    updates = [one.session_resumption_update for one in client.messages]
    return [one.new_handle if one.resumable else None for one in updates if one is not None]


async def closed(client, seconds=10_000.0):
    """Return the code and reason of the close, and the seconds until then."""
    began = now()
    with pytest.raises(errors.APIError) as ended:
        await client.until("never", seconds=seconds)
    return ended.value.code, ended.value.details, now() - began


@virtual_time
async def test_handle_restores_the_conversation_as_it_was():
    async with answering() as sim:
        async with connected(sim, session_resumption={}) as client:
            for _ in range(2):
                await client.send_turn()
                await client.until("serverContent.turnComplete")
                await client.until("sessionResumptionUpdate")
            begin, _, first, _, second = handles(client)
        for handle, count in ((begin, 0), (first, 1), (second, 2), (first, 1)):
            async with connected(sim, session_resumption={"handle": handle}) as client:
                session = sim.sessions[-1]
                assert session.resumed
                assert session.id == sim.sessions[0].id
                assert session.conversation == WORDS * count
                added = [one.item for one in session.backend.commands if isinstance(one, AddItem)]
                assert [type(item) for item in added] == [UserItem, AgentItem] * count
                await client.send_turn()
                await client.until("serverContent.turnComplete")
                assert session.conversation == WORDS * (count + 1)
        # The first session has not changed.
        assert sim.sessions[0].conversation == WORDS * 2


@virtual_time
async def test_session_is_not_resumable_during_a_reply_or_a_function():
    replies = [
        Reply("Yes.", 3.0),
        Reply("", 0.0, tools=[ToolUse("f")]),
        Reply("Done.", 0.1),
    ]
    tools = [{"function_declarations": [{"name": "f"}]}]
    async with (
        answering(*replies) as sim,
        connected(sim, session_resumption={}, tools=tools) as client,
    ):
        await client.send_turn()
        await client.until("serverContent.generationComplete")
        assert [bool(handle) for handle in handles(client)] == [True, False]
        await client.until("serverContent.turnComplete")
        await client.until("sessionResumptionUpdate")
        assert [bool(handle) for handle in handles(client)] == [True, False, True]
        await client.send_turn()
        (call,) = (await client.until("toolCall")).tool_call.function_calls
        await client.until("serverContent.turnComplete")
        await client.receive_for()
        assert [bool(handle) for handle in handles(client)] == [True, False, True, False]
        await client.session.send_tool_response(
            function_responses=[types.FunctionResponse(id=call.id, name="f", response={})]
        )
        await client.until("serverContent.turnComplete")
        await client.until("sessionResumptionUpdate")
        assert [bool(handle) for handle in handles(client)] == [True, False, True, False, True]


@virtual_time
async def test_not_resumable_is_an_empty_update_and_without_resumption_there_is_none():
    async with answering(tls=False) as sim:
        async with started(sim, sessionResumption={}) as client:
            await client.until("sessionResumptionUpdate")
            await client.send({"realtimeInput": {"text": "Hello."}})
            assert await client.until("sessionResumptionUpdate") == {"sessionResumptionUpdate": {}}
        async with started(sim) as client:
            await client.send({"realtimeInput": {"text": "Hello."}})
            await client.until("serverContent.turnComplete")
        await asyncio.sleep(1)
        assert "sessionResumptionUpdate" not in sim.sessions[1].messages_out


@virtual_time
async def test_transparent_session_reports_the_last_consumed_message():
    async with (
        answering(tls=False) as sim,
        started(sim, sessionResumption={"transparent": True}) as client,
    ):
        first = await client.until("sessionResumptionUpdate")
        for _ in range(3):
            await client.send({"realtimeInput": {"text": "Hello."}})
            await client.until("serverContent.turnComplete")
        last = await client.until("sessionResumptionUpdate")
        assert [
            one["sessionResumptionUpdate"]["lastConsumedClientMessageIndex"]
            for one in (first, last)
        ] == ["0", "3"]


@virtual_time
async def test_wrong_and_stale_handles_are_refused():
    async with answering(clock_scale=60.0) as sim:
        async with connected(sim, session_resumption={}) as client:
            await client.until("sessionResumptionUpdate")
            (old,) = handles(client)
        await asyncio.sleep(121)  # two hours, sixty times as fast
        async with connected(sim, session_resumption={}) as client:
            await client.until("sessionResumptionUpdate")
            (forgotten,) = handles(client)
        not_found = "BidiGenerateContent session not found"
        for handle, code, reason in (
            (old, 1008, not_found),
            (forgotten, 1008, not_found),
            ("nonsense", 1007, "Invalid session handle"),
        ):
            if handle == forgotten:
                sim.forget_handles()
            with pytest.raises(errors.APIError) as refused:
                async with connected(sim, session_resumption={"handle": handle}):
                    pass
            assert (refused.value.code, refused.value.details) == (code, reason)
        assert len(sim.sessions) == 2


@virtual_time
async def test_all_but_the_model_may_change_on_resuming():
    async with answering() as sim:
        async with connected(sim, session_resumption={}) as client:
            await client.until("sessionResumptionUpdate")
            (handle,) = handles(client)
        again = {"session_resumption": {"handle": handle}}
        async with connected(sim, system_instruction="Be kind.", **again):
            assert sim.sessions[-1].system_instruction == "Be kind."
        with pytest.raises(errors.APIError) as refused:
            async with connected(sim, model=FLASH_31, **again):
                pass
        assert refused.value.code == 1007


@pytest.mark.parametrize("resumes_open", [True, False])
def test_whether_an_open_session_can_be_resumed_is_an_option(resumes_open):
    @virtual_time
    async def run():
        async with answering(resumes_open=resumes_open) as sim:
            async with connected(sim, session_resumption={}) as client:
                await client.until("sessionResumptionUpdate")
                again = {"session_resumption": {"handle": handles(client)[0]}}
                try:
                    async with connected(sim, **again):
                        open_code = 0
                except errors.APIError as error:
                    open_code = error.code
            await asyncio.sleep(0.1)
            async with connected(sim, **again):
                assert sim.sessions[-1].resumed
            return open_code

    assert run() == (0 if resumes_open else 1011)


@pytest.mark.parametrize("scale", [1, 60])
def test_connection_is_warned_and_then_ended(scale):
    @virtual_time
    async def run():
        async with answering(clock_scale=scale) as sim, connected(sim) as client:
            began = now()
            warning = await client.until("goAway", seconds=700)
            at = now() - began
            code, reason, left = await closed(client)
            assert code == 1008
            assert reason.startswith("Connection aborted because the client failed to close")
            return at, warning.go_away.time_left, left

    at, time_left, left = run()
    assert at == pytest.approx(590 / scale, abs=0.1)
    assert left == pytest.approx(10 / scale, abs=0.1)
    assert float(time_left.removesuffix("s")) == pytest.approx(10 / scale)


@virtual_time
async def test_test_can_end_a_connection_with_a_warning():
    async with answering() as sim, connected(sim) as client:
        sim.go_away(time_left=2.5)
        warning = await client.until("goAway")
        assert warning.go_away.time_left == "2.5s"
        # The earlier timers no longer apply.
        blob = types.Blob(data=b"x", mime_type="image/jpeg")
        await client.session.send_realtime_input(video=blob)
        assert (await closed(client))[2] == pytest.approx(2.5, abs=0.1)
        assert client.count("goAway") == 1


@virtual_time
async def test_connection_ends_at_its_deadline():
    async with answering(max_connection_s=1e6) as sim:
        compression = {"sliding_window": {}}
        async with connected(sim, context_window_compression=compression) as client:
            code, reason, seconds = await closed(client)
            assert (code, reason) == (1011, "Deadline expired before operation could complete.")
            assert seconds == pytest.approx(58 * 60, abs=1)


@pytest.mark.parametrize(
    ("video", "compressed", "minutes"), [(False, False, 15), (True, False, 2), (True, True, 58)]
)
def test_session_without_compression_is_short(video, compressed, minutes):
    @virtual_time
    async def run():
        config = {"context_window_compression": {"sliding_window": {}}} if compressed else {}
        async with answering(max_connection_s=1e6) as sim, connected(sim, **config) as client:
            if video:
                blob = types.Blob(data=b"x", mime_type="image/jpeg")
                await client.session.send_realtime_input(video=blob)
            code, _, seconds = await closed(client)
            assert code == (1011 if compressed else 1008)
            return seconds / 60

    assert run() == pytest.approx(minutes, abs=0.1)


@virtual_time
async def test_resuming_does_not_extend_the_session():
    async with answering() as sim:
        async with connected(sim, session_resumption={}) as client:
            await client.until("sessionResumptionUpdate")
            (handle,) = handles(client)
            await asyncio.sleep(500)
        async with connected(sim, session_resumption={"handle": handle}) as client:
            _, _, seconds = await closed(client)
            assert seconds == pytest.approx(400, abs=1)


@virtual_time
async def test_compression_drops_the_oldest_turns():
    compression = {"trigger_tokens": 200, "sliding_window": {"target_tokens": 100}}
    async with (
        answering() as sim,
        connected(sim, context_window_compression=compression) as client,
    ):
        session = sim.sessions[0]
        sizes = []
        for _ in range(12):
            await client.send_turn()
            done = await client.until("serverContent.turnComplete")
            sizes.append(done.usage_metadata.prompt_token_count)
        # A turn costs 18 tokens and its reply 5.
        assert max(sizes) <= 200
        assert sorted(sizes) != sizes
        assert session.dropped_contents > 0
        assert session.conversation[0]["role"] == "user"
        assert len(session.conversation) + session.dropped_contents == 24


TURNS = st.lists(
    st.tuples(st.sampled_from(["person", "model", "result"]), st.integers(1, 50)), max_size=30
)


@given(TURNS, st.integers(2, 300), st.data())
def test_compressed_conversation_begins_with_a_user_turn(turns, trigger, data):
    target = data.draw(st.integers(0, trigger - 1))
    conversation = Conversation()
    for who, tokens in turns:
        part = {"functionResponse": {"id": "f"}} if who == "result" else {"text": who}
        conversation.add("model" if who == "model" else "user", [part], Cost(text=tokens))
    before = conversation.contents
    total = conversation.cost.total
    dropped = conversation.compress(Compression(trigger, target))
    contents = conversation.contents
    assert contents == before[dropped:]
    if total <= trigger:
        assert dropped == 0
    else:
        assert conversation.cost.total <= target
        assert not contents or contents[0] == {"role": "user", "parts": [{"text": "person"}]}
        # No more was dropped than necessary.
        behind = before[:dropped]
        later = [at for at, one in enumerate(behind) if one["parts"] == [{"text": "person"}]]
        for at in later[1:]:
            assert sum(tokens for _, tokens in turns[at:]) > target


@virtual_time
async def test_result_of_a_call_on_the_earlier_connection_is_ignored():
    call = {"functionCall": {"id": "c1", "name": "f", "args": {}}}
    async with answering(tls=False) as sim:
        async with started(sim, sessionResumption={}) as client:
            await client.send({"clientContent": {"turns": [{"role": "model", "parts": [call]}]}})
            await client.until("sessionResumptionUpdate")
            update = await client.until("sessionResumptionUpdate")
            handle = update["sessionResumptionUpdate"]["newHandle"]
        async with started(sim, sessionResumption={"handle": handle}) as client:
            result = {"id": "c1", "name": "f", "response": {}}
            await client.send({"toolResponse": {"functionResponses": [result]}})
            await client.send({"realtimeInput": {"text": "Hello."}})
            await client.until("serverContent.turnComplete")
            assert len(sim.sessions[1].conversation) == 3


@virtual_time
async def test_initial_history_is_not_replied_to():
    async with answering() as sim, connected(sim, history_config=SEEDED) as client:
        await client.session.send_client_content(turns=HISTORY[:1], turn_complete=False)
        await client.session.send_client_content(turns=HISTORY[1:], turn_complete=True)
        await client.receive_for()
        assert client.kinds == []
        await client.send_turn()
        await client.until("serverContent.turnComplete")
        assert [one["parts"][0]["text"] for one in sim.sessions[0].conversation] == [
            "My name is Eve.",
            "Hello, Eve.",
            "...",
            "Yes.",
        ]
        added = [c.item for c in sim.sessions[0].backend.commands if isinstance(c, AddItem)]
        assert [item.text for item in added] == ["My name is Eve.", "Hello, Eve."]
        # From then on contents are replied to.
        await client.session.send_client_content(turns=HISTORY[:1])
        await client.until("serverContent.turnComplete")


@virtual_time
async def test_functions_of_the_history_are_known():
    call = {"functionCall": {"id": "c1", "name": "f", "args": {"x": 1}}}
    result = {"functionResponse": {"id": "c1", "name": "f", "response": {"y": 2}}}
    async with answering(tls=False) as sim:
        seeded = {"initialHistoryInClientContent": True}
        async with started(sim, historyConfig=seeded) as client:
            turns = [{"role": "model", "parts": [call]}, {"role": "user", "parts": [result]}]
            await client.send({"clientContent": {"turns": turns, "turnComplete": True}})
            await client.send({"realtimeInput": {"text": "And?"}})
            await client.until("serverContent.turnComplete")
            items = [c.item for c in sim.sessions[0].backend.commands if isinstance(c, AddItem)]
            assert [type(item).__name__ for item in items] == [
                *("ToolCallItem", "ToolResultItem", "UserItem")
            ]
            assert (items[0].arguments, items[1].output) == ('{"x":1}', '{"y":2}')


@virtual_time
async def test_realtime_input_before_the_history_is_refused():
    async with answering(tls=False) as sim:
        seeded = {"initialHistoryInClientContent": True}
        content = {"clientContent": {"turns": [{"parts": [{"text": "a"}]}], "turnComplete": True}}
        async with started(sim, historyConfig=seeded) as client:
            await client.send({"realtimeInput": {"text": "Hello."}})
            assert (await client.receive_close())[0] == 1007
        async with started(sim, FLASH_31) as client:
            # A content with `turnComplete` is a turn at any time.
            await client.send({"clientContent": {"turns": [{"parts": [{"text": "b"}]}]}})
            for _ in range(2):
                await client.send(content)
                await client.until("serverContent.turnComplete")
        async with started(sim, FLASH_31, historyConfig=seeded) as client:
            await client.send(content)
            await client.send({"realtimeInput": {"text": "Hello."}})
            await client.until("serverContent.turnComplete")


@virtual_time
async def test_instructions_and_functions_may_change_in_mid_session():
    tools = [{"function_declarations": [{"name": "f"}]}]
    async with answering() as sim, connected(sim, tools=tools) as client:
        session = sim.sessions[0]
        assert [one["name"] for one in session.tools] == ["f"]
        await client.session.send_context_update(system_instruction="Be kind.")
        other = types.Tool(function_declarations=[types.FunctionDeclaration(name="g")])
        await client.session.send_context_update(tools=[other])
        await client.receive_for()
        assert session.system_instruction == "Be kind."
        assert [one["name"] for one in session.tools] == ["g"]
        updates = [one for one in session.backend.commands if isinstance(one, UpdateSession)]
        assert updates[0].instructions == "Be kind."
        assert [tool.name for tool in updates[1].tools] == ["g"]
        await client.session.send_context_update(tools=[])
        await client.receive_for()
        assert session.tools == []


@virtual_time
async def test_backend_gets_the_setup():
    declared = {
        "name": "f",
        "description": "Does f.",
        "parameters": {
            "type": "OBJECT",
            "properties": {"type": {"type": "STRING"}},
            "required": ["type"],
        },
    }
    given = []

    class RecordingBackend(ScriptedRealtime):
        def open(self, setup):
            given.append(setup)
            return super().open(setup)

    tools = [{"function_declarations": [declared]}]
    async with (
        GeminiSimulator(lambda: RecordingBackend(manual=True), tls=True) as sim,
        connected(sim, system_instruction="Be kind.", tools=tools),
    ):
        (backend_setup,) = given
        assert backend_setup.instructions == sim.sessions[0].system_instruction == "Be kind."
        (tool,) = backend_setup.tools
        assert (tool.name, tool.description) == ("f", "Does f.")
        assert tool.parameters == {
            "type": "object",
            "properties": {"type": {"type": "string"}},
            "required": ["type"],
        }


@virtual_time
async def test_messages_may_come_before_the_session_is_ready():
    async with answering(tls=False) as sim, raw(sim) as client:
        await client.send(setup())
        await client.send({"realtimeInput": {"text": "Hello."}})
        assert "setupComplete" in await client.receive()
        await client.until("serverContent.turnComplete")


@virtual_time
async def test_connections_can_be_reset():
    async with answering() as sim:
        async with connected(sim) as one, connected(sim) as two, connected(sim) as three:
            await sim.kill(1)
            assert (await closed(two))[0] == 1006
            await one.send_turn()
            await one.until("serverContent.turnComplete")
            await sim.drop_all()
            for client in (one, three):
                assert (await closed(client))[0] == 1006
        assert all(session.closed for session in sim.sessions)
        async with connected(sim):
            assert len(sim.sessions) == 4


@virtual_time
async def test_client_messages_can_be_inspected():
    async with answering() as sim, connected(sim) as client:
        await client.send_audio(tone(0.1))
        await client.send_audio(silence(0.3))
        await client.until("serverContent.turnComplete")
        session = sim.sessions[0]
        assert session.messages_in[0]["setup"]["model"] == "models/gemini-3.8-live"
        assert session.messages_in[1] == {
            "realtimeInput": {"audio": {"mimeType": "audio/pcm;rate=16000", "data": 4268}}
        }
        assert session.messages_out[0] == "setupComplete"
        assert session.messages_out[-1] == "serverContent.turnComplete"
        assert session.audio_in_samples == 6400
        assert not session.closed
