from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import pytest

import llm_server
from duologue.errors import ConfigError, ErrorKind, SessionError
from duologue.items import AgentItem, Item, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.json_types import Json, JsonObject
from duologue.pipeline.interfaces import LLMOutput, TextDelta, TokenUsage, ToolRequest
from duologue.providers import openai
from duologue.providers._chat_history import PENDING_RESULT
from duologue.providers.openai._chat_messages import chat_messages
from duologue.realtime.commands import ToolSpec

pytest.importorskip("httpx", reason="needs duologue[openai]")

WEATHER = ToolSpec("weather", "The weather.", {"type": "object", "properties": {}})
HISTORY = [UserItem("u", "Hello.")]

type Answer = Callable[[Request], Awaitable[None]]


class Request:
    """One request to the test server, and the means to answer it."""

    def __init__(
        self, path: str, headers: dict[str, str], body: dict[str, object], out: asyncio.StreamWriter
    ) -> None:
        self.path = path
        self.headers = headers
        self.body = body
        self._out = out
        self.gone = asyncio.Event()

    async def stream(self, *chunks: dict[str, object], end: bool = True) -> None:
        """Send server-sent events, as the API streams them."""
        self._out.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for chunk in chunks:
            await self.event(json.dumps(chunk))
        if end:
            await self.event("[DONE]")

    async def event(self, data: str) -> None:
        self._out.write(f"data: {data}\n\n".encode())
        await self._out.drain()

    async def refuse(self, status: int, message: str, code: str) -> None:
        body = json.dumps({"error": {"message": message, "code": code}}).encode()
        self._out.write(
            f"HTTP/1.1 {status} No\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        await self._out.drain()


@asynccontextmanager
async def serving(
    answer: Answer, **options: object
) -> AsyncIterator[tuple[openai.LLM, list[Request]]]:
    """Run a server of the protocol on loopback; yield a model that uses it, and the requests."""
    requests: list[Request] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        request = Request(first.split()[1], headers, body, writer)
        requests.append(request)

        async def watch() -> None:
            await reader.read()
            request.gone.set()

        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(watch())
            await answer(request)
            writer.close()
            await asyncio.wait_for(request.gone.wait(), 5)
            watching.cancel()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    if "proxy" in options:
        options |= {"proxy": url, "base_url": "http://127.0.0.1:9/v1"}
    options = {"base_url": f"{url}/v1", "api_key": "secret", **options}
    llm = openai.LLM("some-model", **options)  # type: ignore[arg-type]
    try:
        yield llm, requests
    finally:
        await llm.close()
        server.close()


def delta(**fields: object) -> dict[str, object]:
    return {"id": "x", "choices": [{"index": 0, "delta": fields}], "object": "c", "created": 0}


def usage(prompt: int, completion: int) -> dict[str, object]:
    used = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": 0}
    return {"id": "x", "choices": [], "usage": used, "object": "c", "created": 0}


async def collect(stream: AsyncGenerator[LLMOutput]) -> list[LLMOutput]:
    async with aclosing(stream):
        return [output async for output in stream]


async def test_text_is_streamed_as_it_arrives() -> None:
    async def answer(request: Request) -> None:
        await request.stream(
            delta(role="assistant", content=""),
            delta(content="Hel"),
            delta(content="lo."),
            usage(7, 2),
        )

    async with serving(answer) as (llm, requests):
        await llm.prepare("Be brief.", [])
        outputs = await collect(llm.generate("Be brief.", HISTORY, []))
    assert outputs == [TextDelta("Hel"), TextDelta("lo."), TokenUsage(7, 2)]
    [request] = requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer secret"
    assert request.body["model"] == "some-model"
    assert request.body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello."},
    ]
    assert "tools" not in request.body


async def test_key_function_is_called_for_each_request() -> None:
    keys = iter(["first", "second"])

    async def answer(request: Request) -> None:
        await request.stream(delta(content="Hello."))

    async def key() -> str:
        return next(keys)

    async with serving(answer, api_key=key, headers={"X-Trace": "1"}) as (llm, requests):
        for _ in range(2):
            await collect(llm.generate("", HISTORY, []))
    sent = [(one.headers["authorization"], one.headers["x-trace"]) for one in requests]
    assert sent == [("Bearer first", "1"), ("Bearer second", "1")]


async def test_request_goes_through_a_given_proxy() -> None:
    async def answer(request: Request) -> None:
        await request.stream(delta(content="Hello."))

    async with serving(answer, proxy=True) as (llm, requests):
        assert await collect(llm.generate("", HISTORY, [])) == [TextDelta("Hello.")]
    assert requests[0].path == "http://127.0.0.1:9/v1/chat/completions"


@pytest.mark.parametrize(
    "options", [{"proxy": "localhost"}, {"headers": {"a b": "c"}}, {"ssl_context": True}]
)
def test_invalid_connection_option_raises_at_construction(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))} must"):
        openai.LLM("m", base_url="http://127.0.0.1:9/v1", **options)  # type: ignore[arg-type]


async def test_tool_call_pieces_are_joined() -> None:
    def part(index: int, **fields: object) -> dict[str, object]:
        return delta(tool_calls=[{"index": index, **fields}])

    async def answer(request: Request) -> None:
        await request.stream(
            part(0, id="a", type="function", function={"name": "weather", "arguments": ""}),
            part(0, function={"arguments": '{"city":'}),
            part(1, id="b", type="function", function={"name": "weather", "arguments": "{}"}),
            part(0, function={"arguments": '"Rome"}'}),
            usage(9, 8),
        )

    async with serving(answer) as (llm, requests):
        outputs = await collect(llm.generate("", HISTORY, [WEATHER]))
    assert outputs == [
        ToolRequest("a", "weather", '{"city":"Rome"}'),
        ToolRequest("b", "weather", "{}"),
        TokenUsage(9, 8),
    ]
    (tool,) = requests[0].body["tools"]  # type: ignore[misc]
    assert tool["function"]["name"] == "weather"  # type: ignore[has-type]


async def test_closing_the_generator_closes_the_stream() -> None:
    async def answer(request: Request) -> None:
        await request.stream(delta(content="One"), end=False)
        await asyncio.wait_for(request.gone.wait(), 5)

    async with serving(answer) as (llm, requests):
        stream = llm.generate("", HISTORY, [])
        assert await anext(stream) == TextDelta("One")
        assert not requests[0].gone.is_set()
        await stream.aclose()
        await asyncio.wait_for(requests[0].gone.wait(), 1)


async def test_cancelling_the_reader_closes_the_stream() -> None:
    async def answer(request: Request) -> None:
        await request.stream(delta(content="One"), end=False)
        await asyncio.wait_for(request.gone.wait(), 5)

    async with serving(answer) as (llm, requests):
        begun = asyncio.Event()

        async def read() -> None:
            async with aclosing(llm.generate("", HISTORY, [])) as stream:
                async for _ in stream:
                    begun.set()

        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(read())
            await begun.wait()
            reading.cancel()
        await asyncio.wait_for(requests[0].gone.wait(), 1)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, ErrorKind.FATAL), (404, ErrorKind.FATAL), (400, ErrorKind.RETRY)],
)
async def test_http_error_keeps_the_servers_message(status: int, kind: ErrorKind) -> None:
    async def answer(request: Request) -> None:
        await request.refuse(status, "The server's own words.", "its_code")

    async with serving(answer) as (llm, _):
        with pytest.raises(SessionError, match=r"The server's own words\.") as caught:
            await collect(llm.generate("", HISTORY, []))
    assert caught.value.code == "its_code"
    assert caught.value.kind is kind


async def test_redirect_is_not_followed_because_the_key_would_be_sent_along() -> None:
    async def answer(request: Request) -> None:
        request._out.write(
            b"HTTP/1.1 307 Elsewhere\r\nLocation: http://127.0.0.2:9/x\r\nContent-Length: 0\r\n\r\n"
        )

    async with serving(answer) as (llm, requests):
        with pytest.raises(SessionError, match=r"redirects to http://127\.0\.0\.2:9/x") as caught:
            await collect(llm.generate("", HISTORY, []))
    assert caught.value.kind is ErrorKind.FATAL
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("body", "words", "code"),
    [
        (b'{"message": "top level", "code": "top"}', "top level", "top"),
        (b"<h1>Bad\n gateway</h1>", "<h1>Bad gateway</h1>", "400"),
        (b"", "the server answered with HTTP 400", "400"),
        (b"[1]", "the server answered with HTTP 400", "400"),
    ],
)
async def test_error_bodies_of_other_forms_are_understood(
    body: bytes, words: str, code: str
) -> None:
    async def answer(request: Request) -> None:
        head = b"HTTP/1.1 400 No\r\nContent-Length: %d\r\n\r\n" % len(body)
        request._out.write(head + body)

    async with serving(answer) as (llm, _):
        with pytest.raises(SessionError) as caught:
            await collect(llm.generate("", HISTORY, []))
    assert (str(caught.value), caught.value.code) == (words, code)


async def test_query_of_the_address_is_kept() -> None:
    async def answer(request: Request) -> None:
        await request.stream(delta(content="Hello."))

    async with serving(answer) as (llm, requests):
        llm = openai.LLM("m", base_url=f"{llm._server._base_url}?api-version=1", api_key="k")
        assert await collect(llm.generate("", HISTORY, [])) == [TextDelta("Hello.")]
        await llm.close()
    assert requests[0].path == "/v1/chat/completions?api-version=1"


async def test_error_within_the_stream_keeps_the_servers_message() -> None:
    async def answer(request: Request) -> None:
        await request.stream(
            delta(content="One"), {"error": {"message": "Out of luck.", "code": "luck"}}
        )

    async with serving(answer) as (llm, _):
        with pytest.raises(SessionError, match=r"Out of luck\."):
            await collect(llm.generate("", HISTORY, []))


async def test_unreachable_server_raises_session_error() -> None:
    llm = openai.LLM("m", base_url="http://user:secret@127.0.0.1:1/v1")
    with pytest.raises(SessionError, match=r"http://127\.0\.0\.1:1/v1 can't be reached") as caught:
        await collect(llm.generate("", HISTORY, []))
    assert "secret" not in str(caught.value)
    await llm.close()


async def test_connection_lost_within_the_stream_raises_session_error() -> None:
    async def answer(request: Request) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n"
        request._out.write(head)
        await request.event(json.dumps(delta(content="One")))

    async with serving(answer) as (llm, _):
        with pytest.raises(SessionError, match="broke off"):
            await collect(llm.generate("", HISTORY, []))


def test_invalid_key_is_not_shown_in_the_error() -> None:
    with pytest.raises(ConfigError, match="printable ASCII without spaces") as caught:
        openai.LLM("some-model", api_key="sk-secret\r\nHost: evil")
    assert "secret" not in str(caught.value)


def test_missing_key_and_server_raises_at_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ConfigError, match="set OPENAI_API_KEY"):
        openai.LLM("gpt")


def test_tool_calls_are_followed_by_their_results() -> None:
    history = [
        UserItem("1", "Weather?"),
        ToolCallItem("2", "a", "weather", "{}"),
        ToolResultItem("3", "a", "no network", failed=True),
        ToolResultItem("4", "nobody's", "sunny"),
        AgentItem("5", ""),
        AgentItem("6", "It failed.", state="cut"),
        SystemItem("7", "Be kind."),
        UserItem("8", None),
    ]
    messages = chat_messages("", history)
    roles = [message["role"] for message in messages]
    assert roles == ["user", "assistant", "tool", "assistant", "system"]
    assert messages[2] == {"role": "tool", "tool_call_id": "a", "content": "error: no network"}
    assert ids(messages) == [["a"]]


def ids(messages: list[JsonObject]) -> list[list[str]]:
    """Return the ids of the calls in each message that has any."""
    calls = [message["tool_calls"] for message in messages if "tool_calls" in message]
    return [[call["id"] for call in made] for made in calls]  # type: ignore[union-attr,index,misc,call-overload]


def test_pending_tool_call_has_a_placeholder_and_moves_to_its_late_result() -> None:
    history: list[Item] = [
        UserItem("1", "Book it."),
        ToolCallItem("2", "a", "book", "{}"),
        ToolCallItem("3", "b", "weather", "{}"),
        ToolResultItem("4", "b", "sunny"),
        UserItem("5", "Are you there?"),
    ]
    messages = chat_messages("", history)
    assert ids(messages) == [["a", "b"]]
    told = {m["tool_call_id"]: m["content"] for m in messages if m["role"] == "tool"}
    assert told == {"a": PENDING_RESULT, "b": "sunny"}
    messages = chat_messages(
        "", [*history, AgentItem("6", "I am at it."), ToolResultItem("7", "a", "booked")]
    )
    assert ids(messages) == [["b"], ["a"]]
    assert [message["role"] for message in messages][-3:] == ["assistant", "assistant", "tool"]
    assert messages[-1]["content"] == "booked"


@pytest.mark.parametrize(
    "odd",
    [
        {"choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]},
        {"choices": [{"index": 0, "finish_reason": "stop"}]},
        {"choices": [{"index": 0, "delta": {"content": None, "tool_calls": None}}]},
        {"choices": [None]},
        {"choices": None, "usage": None},
        {"choices": [{"delta": {"tool_calls": [None, {"index": 0}, {"function": None}]}}]},
        {"usage": {"prompt_tokens": None}},
        {},
        None,
        [],
        "text",
    ],
    ids=repr,
)
async def test_unexpected_chunks_are_skipped(odd: Json) -> None:
    async def answer(request: Request) -> None:
        await request.stream(delta(content="First"), end=False)
        request._out.write(b": a comment\n\nevent: ping\ndata:\n\ndata: {broken\n\n")
        await request.event(json.dumps(odd))
        await request.event(json.dumps(delta(content=[{"type": "text", "text": " second."}])))
        await request.event("[DONE]")
        await request.event(json.dumps(delta(content="after the end")))

    async with serving(answer) as (llm, _):
        outputs = await collect(llm.generate("", HISTORY, [WEATHER]))
    words = "".join(output.text for output in outputs if isinstance(output, TextDelta))
    assert words == "First second."
    assert not any(isinstance(output, ToolRequest) for output in outputs)


async def test_options_become_request_fields_whatever_their_names() -> None:
    options: JsonObject = {
        "top_k": 20,
        "temperature": 0.1,
        "timeout": 7,
        "extra_body": {"a": 1},
    }

    async def answer(request: Request) -> None:
        await request.stream(delta(content="Hello."))

    async with serving(answer) as (llm, requests):
        llm._options = options
        await collect(llm.generate("", HISTORY, []))
    assert requests[0].body.items() >= options.items()
    assert requests[0].body["messages"] == [{"role": "user", "content": "Hello."}]


async def test_unstreamed_completion_is_accepted() -> None:
    call = {"id": "a", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
    message = {"role": "assistant", "content": "Let me see.", "tool_calls": [call]}
    body = {"choices": [{"index": 0, "message": message}], "usage": {"prompt_tokens": 3}}

    async def answer(request: Request) -> None:
        text = json.dumps(body, indent=2).encode()
        request._out.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (len(text), text)
        )

    async with serving(answer) as (llm, _):
        outputs = await collect(llm.generate("", HISTORY, [WEATHER]))
    assert outputs == [
        TextDelta("Let me see."),
        ToolRequest("a", "weather", '{"city": "Rome"}'),
        TokenUsage(3, 0),
    ]


async def test_unintelligible_response_is_an_error() -> None:
    async def answer(request: Request) -> None:
        request._out.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n<br>")

    async with serving(answer) as (llm, _):
        with pytest.raises(SessionError, match="sent no answer of the Chat Completions API"):
            await collect(llm.generate("", HISTORY, []))


def piece(
    index: int | None, call_id: str | None, name: str | None, arguments: Json
) -> dict[str, object]:
    known = {"index": index, "id": call_id}
    call = {key: value for key, value in known.items() if value is not None}
    return delta(tool_calls=[{**call, "function": {"name": name, "arguments": arguments}}])


@pytest.mark.parametrize(
    ("pieces", "calls"),
    [
        ([(0, "a", "f", "{}"), (0, "b", "g", "{}")], [("f", "{}"), ("g", "{}")]),
        (
            [(0, None, "f", '{"x":1}'), (0, None, "f", '{"x":2}')],
            [("f", '{"x":1}'), ("f", '{"x":2}')],
        ),
        ([(None, "a", "f", "{}"), (None, "b", "f", "{}")], [("f", "{}"), ("f", "{}")]),
        ([(None, "a", "f", '{"x"'), (None, None, None, ":1}")], [("f", '{"x":1}')]),
        ([(0, "a", "f", ""), (0, "b", "f", "{}")], [("f", "{}"), ("f", "{}")]),
        ([(0, "a", "f", '{"x"'), (0, "a", "f", ":1}")], [("f", '{"x":1}')]),
        ([(0, "a", "f", '{"x"'), (0, "b", None, ":1}")], [("f", '{"x":1}')]),
        ([(0, "a", "f", '{"x"'), (0, "b", "f", ":1}")], [("f", '{"x":1}')]),
        ([(0, "a", None, None), (0, None, "f", None), (0, "", "", "{}")], [("f", "{}")]),
        ([(0, "a", "f", {"x": 1})], [("f", '{"x": 1}')]),
        ([(0, "a", "f", None)], [("f", "{}")]),
        ([(1, "b", "g", "{}"), (0, "a", "f", "{}")], [("g", "{}"), ("f", "{}")]),
    ],
    ids=repr,
)
async def test_tool_call_pieces_are_assigned_to_their_call(
    pieces: list[tuple[int | None, str | None, str | None, Json]], calls: list[tuple[str, str]]
) -> None:
    async def answer(request: Request) -> None:
        await request.stream(*(piece(*fields) for fields in pieces))

    async with serving(answer) as (llm, _):
        outputs = await collect(llm.generate("", HISTORY, [WEATHER]))
    made = [output for output in outputs if isinstance(output, ToolRequest)]
    assert [(call.name, call.arguments) for call in made] == calls
    assert len({call.call_id for call in made}) == len(calls)
    assert all(call.call_id for call in made)


async def test_long_retry_after_is_reported_at_once() -> None:
    async def answer(request: Request) -> None:
        body = b'{"error": {"message": "slow down"}}'
        request._out.write(
            b"HTTP/1.1 429 Too Many\r\nretry-after: 20\r\ncontent-length: %d\r\n\r\n%b"
            % (len(body), body)
        )

    async with serving(answer) as (llm, requests):
        async with asyncio.timeout(3):
            with pytest.raises(SessionError, match=r"slow down .*asks to retry in 20 s") as caught:
                await collect(llm.generate("", HISTORY, []))
    assert (caught.value.kind, caught.value.code) == (ErrorKind.RETRY, "429")
    assert len(requests) == 1


async def test_short_retry_after_is_retried_once() -> None:
    async def answer(request: Request) -> None:
        if len(requests) == 1:
            request._out.write(
                b"HTTP/1.1 429 Too Many\r\nretry-after: 0.1\r\ncontent-length: 0\r\n\r\n"
            )
        else:
            await request.stream(delta(content="Hello."))

    async with serving(answer) as (llm, requests):
        assert await collect(llm.generate("", HISTORY, [])) == [TextDelta("Hello.")]
    assert len(requests) == 2


async def test_requests_share_one_connection() -> None:
    async def answer(request: llm_server.Request) -> None:
        chunks = [json.dumps(delta(content="Hello.")), "[DONE]"]
        await request.write("".join(f"data: {chunk}\n\n" for chunk in chunks).encode())
        await request.end()

    async with llm_server.serving(answer) as (url, requests):
        llm = openai.LLM("m", base_url=f"{url}/v1", api_key="k")
        for _ in range(3):
            assert await collect(llm.generate("", HISTORY, [])) == [TextDelta("Hello.")]
        await llm.close()
    assert [request.connection for request in requests] == [1, 1, 1]
