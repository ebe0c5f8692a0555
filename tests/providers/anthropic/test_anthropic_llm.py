"""`anthropic.LLM` over Anthropic's own SDK, against a server on loopback."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from duologue.errors import ConfigError, ErrorKind, SessionError
from duologue.items import AgentItem, Item, ToolCallItem, ToolResultItem, UserItem
from duologue.json_types import Json, JsonObject
from duologue.pipeline.interfaces import LLMOutput, TextDelta, TokenUsage, ToolRequest
from duologue.realtime.commands import ToolSpec
from llm_server import Answer, Request, collect, serving

pytest.importorskip("anthropic", reason="needs duologue[anthropic]")

from duologue.providers import anthropic

WEATHER = ToolSpec(
    "weather",
    "The weather of a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
HISTORY: list[Item] = [UserItem("u", "Hello.")]
KEY = "sk-ant-secret-0123456789"


def start(**usage: int) -> JsonObject:
    counts: JsonObject = {"input_tokens": 7, "output_tokens": 1, **usage}
    message: JsonObject = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": counts,
    }
    return {"type": "message_start", "message": message}


def block(index: int, content: JsonObject, *deltas: JsonObject) -> list[JsonObject]:
    return [
        {"type": "content_block_start", "index": index, "content_block": content},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text(index: int, *pieces: str) -> list[JsonObject]:
    deltas: list[JsonObject] = [{"type": "text_delta", "text": piece} for piece in pieces]
    return block(index, {"type": "text", "text": ""}, *deltas)


def call(index: int, call_id: str, name: str, *pieces: str) -> list[JsonObject]:
    deltas: list[JsonObject] = [
        {"type": "input_json_delta", "partial_json": piece} for piece in pieces
    ]
    return block(index, {"type": "tool_use", "id": call_id, "name": name, "input": {}}, *deltas)


def thought(index: int, words: str, signature: str) -> list[JsonObject]:
    return block(
        index,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": words},
        {"type": "signature_delta", "signature": signature},
    )


def stop(reason: str, output_tokens: int = 5, **details: Json) -> list[JsonObject]:
    delta: JsonObject = {"stop_reason": reason, "stop_sequence": None, **details}
    return [
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": output_tokens}},
        {"type": "message_stop"},
    ]


def wire(*events: JsonObject) -> bytes:
    lines = [
        f"event: {one['type']}\ndata: {json.dumps(one, ensure_ascii=False)}\n\n" for one in events
    ]
    return "".join(lines).encode()


async def send(request: Request, *events: JsonObject) -> None:
    """Answer with a message."""
    await request.write(wire(*events))
    await request.end()


def hello(request: Request) -> asyncio.Future[None]:
    return asyncio.ensure_future(send(request, start(), *text(0, "Hello."), *stop("end_turn")))


def error_body(kind: str, message: str) -> JsonObject:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


@asynccontextmanager
async def claude(
    answer: Answer, model: str = "claude-haiku-4-5", **options: object
) -> AsyncIterator[tuple[anthropic.LLM, list[Request]]]:
    async with serving(answer) as (url, requests):
        options = {"base_url": url, "api_key": KEY, **options}
        llm = anthropic.LLM(model, **options)  # type: ignore[arg-type]
        try:
            yield llm, requests
        finally:
            await llm.close()


def words(outputs: Sequence[LLMOutput]) -> str:
    return "".join(output.text for output in outputs if isinstance(output, TextDelta))


async def test_text_is_streamed_as_it_arrives_and_usage_counts_the_whole_prompt() -> None:
    heard: list[LLMOutput] = []

    async def answer(request: Request) -> None:
        usage = start(cache_creation_input_tokens=20, cache_read_input_tokens=300)
        first, *rest = [*text(0, "Hel", "lo."), *stop("end_turn")]
        await request.write(wire(usage, {"type": "ping"}, first, rest[0]))
        while not heard:
            await asyncio.sleep(0.001)
        await request.write(wire(*rest[1:]))
        await request.end()

    async with claude(answer) as (llm, requests):
        await llm.prepare("Be brief.", [])
        await collect(llm.generate("Be brief.", HISTORY, []), heard)
    assert heard == [TextDelta("Hel"), TextDelta("lo."), TokenUsage(327, 5, cached=300)]
    [request] = requests
    assert request.path == "/v1/messages"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert "anthropic-version" in request.headers
    assert request.body == {
        "model": "claude-haiku-4-5",
        "max_tokens": 4096,
        "stream": True,
        "thinking": {"type": "disabled"},
        "system": [
            {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
        ],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Hello.", "cache_control": {"type": "ephemeral"}}
                ],
            }
        ],
    }


async def test_tools_in_two_rounds_two_of_them_at_once() -> None:
    async def answer(request: Request) -> None:
        if len(requests) == 1:
            await send(
                request,
                start(),
                *text(0, "Let me see."),
                *call(1, "toolu_1", "weather", '{"ci', 'ty": "Rome"}'),
                *call(2, "toolu_2", "weather", '{"city": "Oslo"}'),
                *stop("tool_use"),
            )
        elif len(requests) == 2:
            await send(request, start(), *call(0, "toolu_3", "clock"), *stop("tool_use"))
        else:
            await send(request, start(), *text(0, "Warm there, cold here."), *stop("end_turn"))

    history = [*HISTORY]
    async with claude(answer) as (llm, requests):
        tools = [WEATHER, ToolSpec("clock", "The time.", {"type": "object", "properties": {}})]
        first = await collect(llm.generate("", history, tools))
        assert first == [
            TextDelta("Let me see."),
            ToolRequest("toolu_1", "weather", '{"city": "Rome"}'),
            ToolRequest("toolu_2", "weather", '{"city": "Oslo"}'),
            TokenUsage(7, 5),
        ]
        history += [
            AgentItem("a", "Let me see."),
            ToolCallItem("1", "toolu_1", "weather", '{"city": "Rome"}'),
            ToolCallItem("2", "toolu_2", "weather", '{"city": "Oslo"}'),
            ToolResultItem("3", "toolu_1", "25 degrees"),
            ToolResultItem("4", "toolu_2", "no network", failed=True),
        ]
        second = await collect(llm.generate("", history, tools))
        assert second == [ToolRequest("toolu_3", "clock", "{}"), TokenUsage(7, 5)]
        history += [
            ToolCallItem("5", "toolu_3", "clock", "{}"),
            ToolResultItem("6", "toolu_3", "9"),
        ]
        assert words(await collect(llm.generate("", history, tools))) == "Warm there, cold here."
    assert requests[0].body["tools"] == [
        {
            "name": "weather",
            "description": "The weather of a city.",
            "input_schema": WEATHER.parameters,
        },
        {
            "name": "clock",
            "description": "The time.",
            "input_schema": {"type": "object", "properties": {}},
            "cache_control": {"type": "ephemeral"},
        },
    ]
    assert requests[2].body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Hello."}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}},
                {"type": "tool_use", "id": "toolu_2", "name": "weather", "input": {"city": "Oslo"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "25 degrees"},
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_2",
                    "content": "no network",
                    "is_error": True,
                },
            ],
        },
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "toolu_3", "name": "clock", "input": {}}],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_3",
                    "content": "9",
                    "cache_control": {"type": "ephemeral"},
                }
            ],
        },
    ]


def marks(value: Json, path: str = "") -> list[str]:
    """Return where the cache marks of a request are."""
    found: list[str] = []
    if isinstance(value, dict):
        found += [f"{path} {value['cache_control']}"] if "cache_control" in value else []
        for key, one in value.items():
            found += marks(one, f"{path}.{key}")
    elif isinstance(value, list):
        for at, one in enumerate(value):
            found += marks(one, f"{path}[{at}]")
    return sorted(found)


@pytest.mark.parametrize("cache", ["5m", "1h", None])
async def test_cache_marks_stand_behind_tools_instructions_and_the_last_message(
    cache: str | None,
) -> None:
    mark = {"type": "ephemeral", "ttl": "1h"} if cache == "1h" else {"type": "ephemeral"}
    history = [*HISTORY, AgentItem("a", "Hello."), UserItem("b", "And now?")]
    async with claude(hello, cache=cache) as (llm, requests):
        await collect(llm.generate("Be brief.", history, [WEATHER, WEATHER]))
    places = (".messages[2].content[0]", ".system[0]", ".tools[1]")
    assert marks(requests[0].body) == [f"{place} {mark}" for place in places if cache is not None]


async def test_text_of_any_script_arrives_whole_however_its_bytes_are_split() -> None:
    said = "नमस्ते, आप कैसे हैं? 你好,今天天气很好。"

    async def answer(request: Request) -> None:
        data = wire(start(), *text(0, said), *stop("end_turn"))
        for at in range(len(data)):
            await request.write(data[at : at + 1])
        await request.end()

    async with claude(answer) as (llm, requests):
        outputs = await collect(llm.generate(said, [UserItem("u", said)], []))
    assert words(outputs) == said
    assert requests[0].at("messages", 0, "content", 0, "text") == said


@pytest.mark.parametrize(
    ("status", "kind", "error_kind", "tries"),
    [
        (400, "invalid_request_error", ErrorKind.RETRY, 1),
        (401, "authentication_error", ErrorKind.FATAL, 1),
        (402, "billing_error", ErrorKind.FATAL, 1),
        (403, "permission_error", ErrorKind.FATAL, 1),
        (404, "not_found_error", ErrorKind.FATAL, 1),
        (413, "request_too_large", ErrorKind.RETRY, 1),
        (429, "rate_limit_error", ErrorKind.RETRY, 2),
        (500, "api_error", ErrorKind.RETRY, 2),
        (529, "overloaded_error", ErrorKind.RETRY, 2),
    ],
)
async def test_refusal_keeps_the_services_words_and_is_sorted(
    status: int, kind: str, error_kind: ErrorKind, tries: int
) -> None:
    async def answer(request: Request) -> None:
        await request.refuse(status, error_body(kind, "The service's\nown words."))

    async with claude(answer) as (llm, requests):
        with pytest.raises(SessionError, match=r"^The service's own words\.$") as caught:
            await collect(llm.generate("", HISTORY, []))
    assert (caught.value.code, caught.value.kind) == (kind, error_kind)
    assert len(requests) == tries


async def test_empty_balance_ends_the_session_although_its_status_is_400() -> None:
    async def answer(request: Request) -> None:
        words = "Your credit balance is too low to access the Anthropic API."
        await request.refuse(400, error_body("invalid_request_error", words))

    async with claude(answer) as (llm, _):
        with pytest.raises(SessionError, match="credit balance") as caught:
            await collect(llm.generate("", HISTORY, []))
    assert caught.value.kind is ErrorKind.FATAL


@pytest.mark.parametrize(
    ("body", "message"),
    [("<h1>Bad\ngateway</h1>", "<h1>Bad gateway</h1>"), ("[1]", "answered with HTTP 400")],
)
async def test_error_bodies_of_other_forms_are_understood(body: str, message: str) -> None:
    async def answer(request: Request) -> None:
        await request.refuse(400, body)

    async with claude(answer) as (llm, _):
        with pytest.raises(SessionError, match=message) as caught:
            await collect(llm.generate("", HISTORY, []))
    assert caught.value.code == "400"


async def test_short_retry_after_is_waited_for_and_a_long_one_reported_at_once() -> None:
    async def answer(request: Request) -> None:
        if len(requests) == 1:
            await request.refuse(529, error_body("overloaded_error", "Busy."), retry_after="0.1")
        elif len(requests) == 2:
            await hello(request)
        else:
            body = error_body("rate_limit_error", "Slow down.")
            await request.refuse(429, body, retry_after="20")

    async with claude(answer) as (llm, requests), asyncio.timeout(5):
        assert words(await collect(llm.generate("", HISTORY, []))) == "Hello."
        with pytest.raises(SessionError, match=r"Slow down\. \(the server asks to retry in 20 s\)"):
            await collect(llm.generate("", HISTORY, []))
    assert len(requests) == 3


@pytest.mark.parametrize("spoke", [True, False])
async def test_error_event_in_the_stream_is_repeated_only_if_nothing_was_said(spoke: bool) -> None:
    async def answer(request: Request) -> None:
        if len(requests) > 1:
            await hello(request)
            return
        said = text(0, "One") if spoke else []
        await send(request, start(), *said, error_body("overloaded_error", "Overloaded"))

    async with claude(answer) as (llm, requests):
        if spoke:
            with pytest.raises(SessionError, match=r"^Overloaded$") as caught:
                await collect(llm.generate("", HISTORY, []))
            assert (caught.value.code, caught.value.kind) == ("overloaded_error", ErrorKind.RETRY)
        else:
            assert words(await collect(llm.generate("", HISTORY, []))) == "Hello."
    assert len(requests) == (1 if spoke else 2)


async def test_answer_that_ends_without_its_end_is_an_error() -> None:
    async def answer(request: Request) -> None:
        await send(request, start(), *text(0, "One"))

    async with claude(answer) as (llm, _):
        with pytest.raises(SessionError, match="the answer ended in the middle"):
            await collect(llm.generate("", HISTORY, []))


async def test_server_that_speaks_something_else_is_an_error() -> None:
    async def answer(request: Request) -> None:
        await request.write(b"data: {}\n\n")
        await request.end()

    async with claude(answer) as (llm, _):
        with pytest.raises(SessionError, match="sent no answer of the Messages API"):
            await collect(llm.generate("", HISTORY, []))

    async def garble(request: Request) -> None:
        await request.write(b"event: message_start\ndata: {broken\n\n")
        await request.end()

    async with claude(garble) as (llm, _):
        with pytest.raises(SessionError, match="is no JSON"):
            await collect(llm.generate("", HISTORY, []))


@pytest.mark.parametrize(
    ("details", "message"),
    [
        ({"explanation": "It could do harm."}, "It could do harm."),
        ({"category": "cyber"}, "cyber"),
        (None, "the model refused to answer"),
    ],
)
async def test_refusal_of_the_model_is_an_error_in_its_words(
    details: JsonObject | None, message: str
) -> None:
    async def answer(request: Request) -> None:
        end = stop("refusal", stop_details=details and {"type": "refusal", **details})
        await send(request, start(), *text(0, "Well"), *end)

    outputs: list[LLMOutput] = []
    async with claude(answer) as (llm, _):
        with pytest.raises(SessionError, match=message) as caught:
            await collect(llm.generate("", HISTORY, []), outputs)
    assert caught.value.code == "refusal"
    assert outputs == [TextDelta("Well"), TokenUsage(7, 5)]


async def test_answer_at_the_limit_of_tokens_is_kept_unless_it_is_of_no_use() -> None:
    answers = [
        [*text(0, "A long story"), *stop("max_tokens")],
        [*text(0, "See"), *call(1, "toolu_1", "weather", '{"ci'), *stop("max_tokens")],
        [*stop("model_context_window_exceeded")],
    ]

    async def answer(request: Request) -> None:
        await send(request, start(), *answers[len(requests) - 1])

    async with claude(answer, max_output_tokens=9) as (llm, requests):
        assert words(await collect(llm.generate("", HISTORY, []))) == "A long story"
        with pytest.raises(SessionError, match="before it had called its tools: raise max_output"):
            await collect(llm.generate("", HISTORY, [WEATHER]))
        with pytest.raises(SessionError, match="before it had said anything") as caught:
            await collect(llm.generate("", HISTORY, []))
    assert caught.value.code == "model_context_window_exceeded"
    assert requests[0].body["max_tokens"] == 9


@pytest.mark.parametrize(
    ("model", "thinking", "sent"),
    [
        ("claude-sonnet-5", "off", {"thinking": {"type": "disabled"}}),
        ("claude-sonnet-5-5", "off", {"thinking": {"type": "between_tools"}}),
        (
            "claude-opus-5-5",
            "off",
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
        ),
        (
            "claude-sonnet-5",
            "high",
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
        ),
        ("claude-haiku-4-5", 2000, {"thinking": {"type": "enabled", "budget_tokens": 2000}}),
        ("claude-haiku-4-5", None, {}),
    ],
)
async def test_thinking_is_asked_for_in_the_words_of_the_model(
    model: str, thinking: str | int | None, sent: JsonObject
) -> None:
    async with claude(hello, model, thinking=thinking) as (llm, requests):
        await collect(llm.generate("", HISTORY, []))
    body = requests[0].body
    assert {key: body[key] for key in ("thinking", "output_config") if key in body} == sent
    assert body["max_tokens"] == (6096 if thinking == 2000 else 4096)


async def test_unknown_model_that_can_not_turn_thinking_off_thinks_little() -> None:
    async def answer(request: Request) -> None:
        kind = request.at("thinking", "type")
        if kind == "adaptive":
            await hello(request)
        else:
            message = f'"thinking.type.{kind}" is not supported for this model.'
            await request.refuse(400, error_body("invalid_request_error", message))

    async with claude(answer, "claude-next-6") as (llm, requests):
        assert words(await collect(llm.generate("", HISTORY, []))) == "Hello."
        assert len(requests) == 3
        assert words(await collect(llm.generate("", HISTORY, []))) == "Hello."
    assert len(requests) == 4
    assert requests[3].at("output_config", "effort") == "low"


async def test_thoughts_go_back_with_tool_results_until_the_service_refuses_them() -> None:
    async def answer(request: Request) -> None:
        match len(requests):
            case 1:
                await send(
                    request,
                    start(),
                    *thought(0, "Which city?", "sig=="),
                    *block(1, {"type": "redacted_thinking", "data": "xyz"}),
                    *text(2, "Let me see."),
                    *call(3, "toolu_1", "weather", '{"city": "Rome"}'),
                    *stop("tool_use"),
                )
            case 3:
                message = (
                    "messages.1.content.0: Invalid `signature` in `thinking` block. "
                    "The block is bound to a different conversation. Remove the block."
                )
                await request.refuse(400, error_body("invalid_request_error", message))
            case _:
                await hello(request)

    history = [*HISTORY]
    async with claude(answer, "claude-sonnet-5", thinking="low") as (llm, requests):
        assert "Which" not in words(await collect(llm.generate("", history, [WEATHER])))
        history += [
            AgentItem("a", "Let me see."),
            ToolCallItem("1", "toolu_1", "weather", '{"city": "Rome"}'),
            ToolResultItem("2", "toolu_1", "25"),
        ]
        await collect(llm.generate("", history, [WEATHER]))
        assert words(await collect(llm.generate("", history, [WEATHER]))) == "Hello."
        later = [*history, AgentItem("b", "Warm."), UserItem("c", "Thanks.")]
        await collect(llm.generate("", later, [WEATHER]))
    kinds = [
        [one["type"] for one in request.at("messages", 1, "content")]  # type: ignore[union-attr,index,call-overload]
        for request in requests[1:]
    ]
    with_thoughts = ["thinking", "redacted_thinking", "text", "tool_use"]
    assert kinds == [with_thoughts, with_thoughts, ["text", "tool_use"], ["text", "tool_use"]]
    assert requests[1].at("messages", 1, "content", 0) == {
        "type": "thinking",
        "thinking": "Which city?",
        "signature": "sig==",
    }


async def test_number_of_thinking_tokens_is_left_out_where_thoughts_are_missing() -> None:
    history = [*HISTORY, ToolCallItem("1", "a", "weather", "{}"), ToolResultItem("2", "a", "25")]
    async with claude(hello, thinking=1024) as (llm, requests):
        await collect(llm.generate("", history, [WEATHER]))
        await collect(llm.generate("", [*history, UserItem("3", "Thanks.")], [WEATHER]))
    assert [request.at("thinking", "type") for request in requests] == ["disabled", "enabled"]


async def test_key_function_headers_and_options_are_part_of_each_request() -> None:
    keys = iter(["first", "second"])
    options: JsonObject = {"metadata": {"user_id": "x"}, "thinking": {"display": "omitted"}}
    async with claude(
        hello, api_key=lambda: next(keys), headers={"X-Team": "voice"}, options=options
    ) as (llm, requests):
        for _ in range(2):
            await collect(llm.generate("", HISTORY, []))
    sent = [request.headers["authorization"] for request in requests]
    assert sent == ["Bearer first", "Bearer second"]
    assert requests[0].headers["x-team"] == "voice"
    assert requests[0].body["metadata"] == {"user_id": "x"}
    assert requests[0].body["thinking"] == {"type": "disabled", "display": "omitted"}


async def test_requests_go_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(hello) as (url, requests):
        for proxy in (url, None):
            if proxy is None:
                monkeypatch.setenv("HTTP_PROXY", url)
                monkeypatch.delenv("NO_PROXY", raising=False)
            llm = anthropic.LLM("m", base_url="http://claude.invalid", api_key=KEY, proxy=proxy)
            assert words(await collect(llm.generate("", HISTORY, []))) == "Hello."
            await llm.close()
    assert {request.path for request in requests} == {"http://claude.invalid/v1/messages"}


def test_key_and_address_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    with pytest.raises(ConfigError, match="no API key: set ANTHROPIC_API_KEY"):
        anthropic.LLM("claude-haiku-4-5")
    anthropic.LLM("claude-haiku-4-5", base_url="http://127.0.0.1:1")
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    llm = anthropic.LLM("claude-haiku-4-5")
    assert (llm.model, llm.tools_reliable) == ("claude-haiku-4-5", True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": ""}, "model must be the name of a model, not ''"),
        ({"api_key": "a b"}, "api_key must be printable ASCII without spaces"),
        ({"thinking": 5}, "thinking must be off, low, .* or 1024 tokens or more, not 5"),
        ({"thinking": "much"}, "thinking must be off"),
        ({"cache": "1d"}, "cache must be one of 5m, 1h, None, not '1d'"),
        ({"max_output_tokens": 0}, "max_output_tokens must be an integer between 1 and"),
        ({"timeout": 0}, "timeout must be a number above 0"),
        ({"base_url": "http://x/?a=1"}, "with no query"),
        ({"base_url": "ftp://x"}, "base_url must be an address such as"),
        ({"proxy": "x"}, "proxy must be an address such as"),
        ({"ssl_context": 1}, "ssl_context must be an ssl.SSLContext, not int"),
    ],
)
def test_invalid_arguments_are_errors_of_one_line(options: JsonObject, message: str) -> None:
    arguments = {"model": "m", "api_key": KEY, **options}
    with pytest.raises(ConfigError, match=message) as caught:
        anthropic.LLM(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


async def test_no_log_at_info_has_words_and_none_at_debug_has_the_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def answer(request: Request) -> None:
        await send(request, start(), *text(0, "Marmalade."), *stop("end_turn"))

    with caplog.at_level(logging.DEBUG):
        async with claude(answer) as (llm, _):
            await collect(llm.generate("Whisper.", HISTORY, []))
    lines = [record for record in caplog.records if KEY in record.getMessage()]
    assert not lines
    said = [record for record in caplog.records if "Marmalade" in record.getMessage()]
    assert not [record for record in said if record.levelno > logging.DEBUG]
    assert KEY not in repr(vars(llm))


def test_importing_the_provider_imports_neither_the_sdk_nor_an_http_client() -> None:
    code = (
        "import sys; import duologue.providers.anthropic as a; a.LLM('m', api_key='k')\n"
        "print([m for m in ('anthropic', 'httpx2', 'httpx', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_missing_sdk_is_named_with_the_command_that_installs_it() -> None:
    code = (
        "import asyncio, sys; sys.modules['anthropic'] = None\n"
        "from duologue.providers import anthropic\n"
        "asyncio.run(anthropic.LLM('m', api_key='k').prepare('', []))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    last = done.stderr.strip().splitlines()[-1]
    assert last.endswith("anthropic is not installed: pip install 'duologue[anthropic]'"), last
