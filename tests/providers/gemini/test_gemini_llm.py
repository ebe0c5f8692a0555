"""`gemini.LLM` over Google's own SDK, against a server on loopback."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from duologue.errors import ConfigError, ErrorKind, SessionError
from duologue.items import AgentItem, Item, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.json_types import Json, JsonObject
from duologue.pipeline.interfaces import LLMOutput, TextDelta, TokenUsage, ToolRequest
from duologue.providers._chat_history import BEGINNING, CONTINUE
from duologue.realtime.commands import ToolSpec
from llm_server import Answer, Request, collect, serving

pytest.importorskip("google.genai", reason="needs duologue[gemini-text]")

from duologue.providers import gemini
from duologue.providers.gemini._text_contents import text_contents
from duologue.providers.gemini._text_thinking import UNSIGNED

WEATHER = ToolSpec(
    "weather",
    "The weather of a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
HISTORY: list[Item] = [UserItem("u", "Hello.")]
KEY = "AIza-secret-0123456789"


def chunk(*parts: JsonObject, finish: str = "", **fields: Json) -> JsonObject:
    candidate: JsonObject = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    usage: JsonObject = {"promptTokenCount": 40, "candidatesTokenCount": 5, "totalTokenCount": 45}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "g", **fields}


def call(name: str, call_id: str = "", signature: bytes = b"", **args: Json) -> JsonObject:
    made: JsonObject = {"name": name, "args": args}
    if call_id:
        made["id"] = call_id
    part: JsonObject = {"functionCall": made}
    if signature:
        part["thoughtSignature"] = base64.b64encode(signature).decode()
    return part


def wire(*chunks: JsonObject) -> bytes:
    shown = [json.dumps(one, ensure_ascii=False) for one in chunks]
    return "".join(f"data: {one}\r\n\r\n" for one in shown).encode()


async def send(request: Request, *chunks: JsonObject) -> None:
    """Answer with chunks."""
    await request.write(wire(*chunks))
    await request.end()


async def hello(request: Request) -> None:
    await send(request, chunk({"text": "Hello."}, finish="STOP"))


def camel(value: Json) -> Json:
    """Return JSON with the names of fields as the API writes them; the SDK also sends others."""
    if isinstance(value, list):
        return [camel(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        re.sub(r"_([a-z])", lambda found: found[1].upper(), key): camel(one)
        for key, one in value.items()
    }


def error_body(code: int, status: str, message: str, delay: str = "") -> JsonObject:
    error: JsonObject = {"code": code, "message": message, "status": status}
    if delay:
        kind = "type.googleapis.com/google.rpc.RetryInfo"
        error["details"] = [{"@type": kind, "retryDelay": delay}]
    return {"error": error}


@asynccontextmanager
async def model(
    answer: Answer, name: str = "gemini-2.5-flash", **options: object
) -> AsyncIterator[tuple[gemini.LLM, list[Request]]]:
    async with serving(answer) as (url, requests):
        options = {"base_url": url, "api_key": KEY, **options}
        llm = gemini.LLM(name, **options)  # type: ignore[arg-type]
        try:
            yield llm, requests
        finally:
            await llm.close()


def words(outputs: Sequence[LLMOutput]) -> str:
    return "".join(output.text for output in outputs if isinstance(output, TextDelta))


async def test_text_is_streamed_as_it_arrives() -> None:
    heard: list[LLMOutput] = []

    async def answer(request: Request) -> None:
        await request.write(wire(chunk({"text": "Hel"})))
        while not heard:
            await asyncio.sleep(0.001)
        usage: JsonObject = {
            "promptTokenCount": 40,
            "cachedContentTokenCount": 30,
            "candidatesTokenCount": 5,
            "thoughtsTokenCount": 2,
        }
        thought: JsonObject = {"text": "Hmm.", "thought": True}
        await send(request, chunk(thought, {"text": "lo."}, finish="STOP", usageMetadata=usage))

    async with model(answer) as (llm, requests):
        await llm.prepare("Be brief.", [])
        await collect(llm.generate("Be brief.", HISTORY, []), heard)
    usage = TokenUsage(40, 7, cached=30, reasoning=2)
    assert heard == [TextDelta("Hel"), TextDelta("lo."), usage]
    [request] = requests
    assert request.path.endswith("/models/gemini-2.5-flash:streamGenerateContent?alt=sse")
    assert request.headers["x-goog-api-key"] == KEY
    assert camel(request.body) == {
        "contents": [{"role": "user", "parts": [{"text": "Hello."}]}],
        "systemInstruction": {"role": "user", "parts": [{"text": "Be brief."}]},
        "generationConfig": {"maxOutputTokens": 4096, "thinkingConfig": {"thinkingBudget": 0}},
    }


async def test_tools_in_two_rounds_two_of_them_at_once_keep_their_signatures() -> None:
    async def answer(request: Request) -> None:
        if len(requests) == 1:
            await send(
                request,
                chunk({"text": "Let me see."}),
                chunk(call("weather", "c1", b"sig1", city="Rome"), call("weather", city="Oslo")),
                chunk(finish="STOP"),
            )
        elif len(requests) == 2:
            await send(request, chunk(call("clock", "c3", b"sig3"), finish="STOP"))
        else:
            await hello(request)

    history = [*HISTORY]
    async with model(answer, "gemini-3.5-flash") as (llm, requests):
        tools = [WEATHER, ToolSpec("clock", "The time.", {"type": "object", "properties": {}})]
        said, first, second, usage = await collect(llm.generate("", history, tools))
        assert (said, usage) == (TextDelta("Let me see."), TokenUsage(40, 5))
        assert first == ToolRequest("c1", "weather", '{"city": "Rome"}')
        assert isinstance(second, ToolRequest)
        assert (second.name, second.arguments) == ("weather", '{"city": "Oslo"}')
        history += [
            AgentItem("a", "Let me see."),
            ToolCallItem("1", "c1", "weather", '{"city": "Rome"}'),
            ToolCallItem("2", second.call_id, "weather", '{"city": "Oslo"}'),
            ToolResultItem("3", second.call_id, "no network", failed=True),
            ToolResultItem("4", "c1", '{"degrees": 25}'),
        ]
        third = await collect(llm.generate("", history, tools))
        assert third[0] == ToolRequest("c3", "clock", "{}")
        history += [ToolCallItem("5", "c3", "clock", "{}"), ToolResultItem("6", "c3", "nine")]
        assert words(await collect(llm.generate("", history, tools))) == "Hello."
    assert camel(requests[0].at("tools", 0, "functionDeclarations", 0)) == {
        "name": "weather",
        "description": "The weather of a city.",
        "parametersJsonSchema": WEATHER.parameters,
    }
    assert requests[2].body["contents"] == [
        {"role": "user", "parts": [{"text": "Hello."}]},
        {
            "role": "model",
            "parts": [
                {"text": "Let me see."},
                call("weather", "c1", b"sig1", city="Rome"),
                call("weather", second.call_id, city="Oslo"),
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "c1", "name": "weather", "response": {"degrees": 25}}},
                {
                    "functionResponse": {
                        "id": second.call_id,
                        "name": "weather",
                        "response": {"error": "no network"},
                    }
                },
            ],
        },
        {"role": "model", "parts": [call("clock", "c3", b"sig3")]},
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "c3", "name": "clock", "response": {"output": "nine"}}}
            ],
        },
    ]


def test_calls_of_the_current_turn_that_were_not_signed_say_so() -> None:
    old = [ToolCallItem("1", "a", "f", "{broken"), ToolResultItem("2", "a", "1")]
    new = [ToolCallItem("3", "b", "f", "{}"), ToolResultItem("4", "b", "2")]
    history = [*HISTORY, *old, UserItem("5", "Again."), *new]
    for unsigned in (UNSIGNED, None):
        found = [
            part.get("thought_signature")
            for content in text_contents(history, {}, unsigned)
            for part in content["parts"]  # type: ignore[attr-defined]
            if "function_call" in part
        ]
        assert found == [None, unsigned]


def test_contents_begin_and_end_with_the_person_and_alternate() -> None:
    def shown(history: list[Item]) -> list[tuple[object, list[str]]]:
        contents = text_contents(history, {}, None)
        return [(one["role"], [part["text"] for part in one["parts"]]) for one in contents]  # type: ignore[attr-defined]

    assert shown([]) == [("user", [BEGINNING])]
    assert shown([AgentItem("1", "Hi."), SystemItem("2", "Be kind."), AgentItem("3", "Ho.")]) == [
        ("user", [BEGINNING]),
        ("model", ["Hi."]),
        ("user", ["[Not said by the person: Be kind.]"]),
        ("model", ["Ho."]),
        ("user", [CONTINUE]),
    ]


async def test_text_of_any_script_arrives_whole_however_its_bytes_are_split() -> None:
    said = "नमस्ते, आप कैसे हैं? 你好,今天天气很好。"

    async def answer(request: Request) -> None:
        data = wire(chunk({"text": said}, finish="STOP"))
        for at in range(len(data)):
            await request.write(data[at : at + 1])
        await request.end()

    async with model(answer) as (llm, requests):
        outputs = await collect(llm.generate(said, [UserItem("u", said)], []))
    assert words(outputs) == said
    assert requests[0].at("contents", 0, "parts", 0, "text") == said


@pytest.mark.parametrize(
    ("code", "status", "kind", "tries"),
    [
        (400, "INVALID_ARGUMENT", ErrorKind.RETRY, 1),
        (401, "UNAUTHENTICATED", ErrorKind.FATAL, 1),
        (403, "PERMISSION_DENIED", ErrorKind.FATAL, 1),
        (404, "NOT_FOUND", ErrorKind.FATAL, 1),
        (429, "RESOURCE_EXHAUSTED", ErrorKind.RETRY, 2),
        (500, "INTERNAL", ErrorKind.RETRY, 2),
        (503, "UNAVAILABLE", ErrorKind.RETRY, 2),
    ],
)
async def test_refusal_keeps_the_services_words_and_is_sorted(
    code: int, status: str, kind: ErrorKind, tries: int
) -> None:
    async def answer(request: Request) -> None:
        await request.refuse(code, error_body(code, status, "The service's\nown words."))

    async with model(answer) as (llm, requests):
        with pytest.raises(SessionError, match=r"^The service's own words\.$") as caught:
            await collect(llm.generate("", HISTORY, []))
    assert (caught.value.code, caught.value.kind) == (status, kind)
    assert len(requests) == tries


async def test_wrong_key_ends_the_session_although_its_status_is_400() -> None:
    async def answer(request: Request) -> None:
        message = "API key not valid. Please pass a valid API key."
        await request.refuse(400, error_body(400, "INVALID_ARGUMENT", message))

    async with model(answer) as (llm, _):
        with pytest.raises(SessionError, match="API key not valid") as caught:
            await collect(llm.generate("", HISTORY, []))
    assert caught.value.kind is ErrorKind.FATAL


async def test_error_without_json_is_understood() -> None:
    async def answer(request: Request) -> None:
        await request.refuse(400, "<h1>Bad\ngateway</h1>")

    async with model(answer) as (llm, _):
        with pytest.raises(SessionError, match="<h1>Bad gateway</h1>"):
            await collect(llm.generate("", HISTORY, []))


async def test_short_delay_is_waited_for_and_a_long_one_reported_at_once() -> None:
    async def answer(request: Request) -> None:
        if len(requests) == 1:
            body = error_body(429, "RESOURCE_EXHAUSTED", "Busy.", "0.1s")
            await request.refuse(429, body)
        elif len(requests) == 2:
            await hello(request)
        else:
            body = error_body(429, "RESOURCE_EXHAUSTED", "Slow down.", "20.5s")
            await request.refuse(429, body)

    async with model(answer) as (llm, requests), asyncio.timeout(5):
        assert words(await collect(llm.generate("", HISTORY, []))) == "Hello."
        with pytest.raises(SessionError, match=r"Slow down\. \(the server asks to retry in 20\.5"):
            await collect(llm.generate("", HISTORY, []))
    assert len(requests) == 3


@pytest.mark.parametrize("spoke", [True, False])
async def test_error_in_the_stream_is_repeated_only_if_nothing_was_said(spoke: bool) -> None:
    async def answer(request: Request) -> None:
        if len(requests) > 1:
            await hello(request)
            return
        said = [chunk({"text": "One"})] if spoke else []
        await send(request, *said, error_body(503, "UNAVAILABLE", "Overloaded"))

    async with model(answer) as (llm, requests):
        if spoke:
            with pytest.raises(SessionError, match=r"^Overloaded$") as caught:
                await collect(llm.generate("", HISTORY, []))
            assert (caught.value.code, caught.value.kind) == ("UNAVAILABLE", ErrorKind.RETRY)
        else:
            assert words(await collect(llm.generate("", HISTORY, []))) == "Hello."
    assert len(requests) == (1 if spoke else 2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (wire(chunk({"text": "One"})), "the answer ended in the middle"),
        (b"", "sent no answer of the Gemini API"),
        (b"data: {broken\n\n", "sent no answer of the Gemini API"),
    ],
)
async def test_answer_that_is_none_is_an_error(data: bytes, message: str) -> None:
    async def answer(request: Request) -> None:
        request.begin()
        if data:
            await request.write(data)
        await request.end()

    async with model(answer) as (llm, _):
        with pytest.raises(SessionError, match=message) as caught:
            await collect(llm.generate("", HISTORY, []))
    assert "broken" not in str(caught.value)


@pytest.mark.parametrize(
    ("sent", "message", "code"),
    [
        (
            chunk({"text": "Well"}, finish="SAFETY"),
            r"the model did not finish its answer \(SAFETY\)",
            "SAFETY",
        ),
        (
            {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "No."}},
            r"^No\.$",
            "PROHIBITED_CONTENT",
        ),
        (chunk(finish="MALFORMED_FUNCTION_CALL"), "MALFORMED", "MALFORMED_FUNCTION_CALL"),
        (chunk(finish="MAX_TOKENS"), "before it had said anything: raise max_out", "MAX_TOKENS"),
        (chunk(call("f"), finish="MAX_TOKENS"), "before it had called its tools", "MAX_TOKENS"),
    ],
)
async def test_answer_of_no_use_is_an_error(sent: JsonObject, message: str, code: str) -> None:
    async def answer(request: Request) -> None:
        await send(request, sent)

    async with model(answer) as (llm, _):
        with pytest.raises(SessionError, match=message) as caught:
            await collect(llm.generate("", HISTORY, [WEATHER]))
    assert caught.value.code == code


async def test_text_that_reached_the_limit_of_tokens_is_kept() -> None:
    async def answer(request: Request) -> None:
        await send(request, chunk({"text": "A long story"}, finish="MAX_TOKENS"))

    async with model(answer, max_output_tokens=9) as (llm, requests):
        assert words(await collect(llm.generate("", HISTORY, []))) == "A long story"
    assert requests[0].at("generationConfig", "maxOutputTokens") == 9


@pytest.mark.parametrize(
    ("name", "thinking", "sent"),
    [
        ("gemini-2.0-flash", "off", None),
        ("gemini-2.5-pro", "off", {"thinkingBudget": 128}),
        ("gemini-3.5-flash", "off", {"thinkingLevel": "MINIMAL"}),
        ("gemini-3.1-pro-preview", "off", {"thinkingLevel": "LOW"}),
        ("gemini-4-argon", "off", {"thinkingLevel": "LOW"}),
        ("gemini-3.5-flash", "high", {"thinkingLevel": "HIGH"}),
        ("gemini-2.5-flash", 500, {"thinkingBudget": 500}),
        ("gemini-2.5-flash", None, None),
    ],
)
async def test_thinking_is_asked_for_in_the_words_of_the_model(
    name: str, thinking: str | int | None, sent: JsonObject | None
) -> None:
    async with model(hello, name, thinking=thinking) as (llm, requests):
        await collect(llm.generate("", HISTORY, []))
    assert camel(requests[0].at("generationConfig", "thinkingConfig")) == sent


async def test_unknown_model_that_refuses_a_way_of_thinking_gets_the_next() -> None:
    async def answer(request: Request) -> None:
        if camel(request.at("generationConfig", "thinkingConfig")) == {"thinkingLevel": "LOW"}:
            await hello(request)
        else:
            message = "Thinking level is not supported for this model."
            await request.refuse(400, error_body(400, "INVALID_ARGUMENT", message))

    async with model(answer, "gemini-3.7-flash") as (llm, requests):
        for _ in range(2):
            assert words(await collect(llm.generate("", HISTORY, []))) == "Hello."
    assert len(requests) == 3


async def test_signature_that_is_refused_is_forgotten() -> None:
    async def answer(request: Request) -> None:
        if len(requests) == 1:
            await send(request, chunk(call("weather", "c1", b"sig1"), finish="STOP"))
        elif len(requests) == 2:
            body = error_body(400, "INVALID_ARGUMENT", "Corrupted thought signature.")
            await request.refuse(400, body)
        else:
            await hello(request)

    async with model(answer, "gemini-3.5-flash") as (llm, requests):
        await collect(llm.generate("", HISTORY, [WEATHER]))
        made = [ToolCallItem("1", "c1", "weather", "{}"), ToolResultItem("2", "c1", "25")]
        assert words(await collect(llm.generate("", [*HISTORY, *made], [WEATHER]))) == "Hello."
    sent = [
        base64.b64decode(str(request.at("contents", 1, "parts", 0, "thoughtSignature")))
        for request in requests[1:]
    ]
    assert sent == [b"sig1", UNSIGNED]


async def test_key_function_headers_and_options_are_part_of_each_request() -> None:
    keys = iter(["first", "second"])
    options: JsonObject = {"generationConfig": {"temperature": 0.3}, "safetySettings": []}
    async with model(
        hello, api_key=lambda: next(keys), headers={"X-Team": "voice"}, options=options
    ) as (llm, requests):
        for _ in range(2):
            await collect(llm.generate("", HISTORY, []))
    assert [request.headers["x-goog-api-key"] for request in requests] == ["first", "second"]
    assert requests[0].headers["x-team"] == "voice"
    assert requests[0].at("generationConfig", "temperature") == 0.3
    assert requests[0].at("generationConfig", "maxOutputTokens") == 4096


async def test_requests_go_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(hello) as (url, requests):
        for proxy in (url, None):
            if proxy is None:
                monkeypatch.setenv("HTTP_PROXY", url)
                monkeypatch.delenv("NO_PROXY", raising=False)
            llm = gemini.LLM("m", base_url="http://gemini.invalid", api_key=KEY, proxy=proxy)
            assert words(await collect(llm.generate("", HISTORY, []))) == "Hello."
            await llm.close()
    assert {request.path.partition("/v1")[0] for request in requests} == {"http://gemini.invalid"}


def test_key_and_address_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="no API key: set GEMINI_API_KEY"):
        gemini.LLM("gemini-2.5-flash")
    gemini.LLM("gemini-2.5-flash", base_url="http://127.0.0.1:1")
    monkeypatch.setenv("GOOGLE_API_KEY", KEY)
    llm = gemini.LLM("gemini-2.5-flash")
    assert (llm.model, llm.tools_reliable) == ("gemini-2.5-flash", True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": ""}, "model must be the name of a model, not ''"),
        ({"api_key": "a b"}, "api_key must be printable ASCII without spaces"),
        ({"thinking": -1}, "thinking must be off, minimal, .* or a number of tokens, not -1"),
        ({"thinking": "much"}, "thinking must be off"),
        ({"max_output_tokens": 0}, "max_output_tokens must be an integer between 1 and"),
    ],
)
def test_invalid_arguments_are_errors_of_one_line(options: JsonObject, message: str) -> None:
    arguments = {"model": "m", "api_key": KEY, **options}
    with pytest.raises(ConfigError, match=message) as caught:
        gemini.LLM(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


async def test_no_log_at_info_has_words_and_none_at_debug_has_the_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def answer(request: Request) -> None:
        await send(request, chunk({"text": "Marmalade."}, finish="STOP"))

    with caplog.at_level(logging.DEBUG):
        async with model(answer) as (llm, _):
            await collect(llm.generate("Whisper.", HISTORY, []))
    assert not [record for record in caplog.records if KEY in record.getMessage()]
    said = [record for record in caplog.records if "Marmalade" in record.getMessage()]
    assert not [record for record in said if record.levelno > logging.DEBUG]
    assert KEY not in repr(vars(llm))


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_making_one_imports_neither_the_sdk_nor_what_live_needs() -> None:
    done = run(
        "import sys; sys.modules['orjson'] = None; sys.modules['websockets'] = None\n"
        "import duologue.providers.gemini as g; g.LLM('m', api_key='k')\n"
        "print([m for m in ('google.genai', 'httpx2', 'httpx', 'pydantic') if m in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_missing_sdk_is_named_with_the_command_that_installs_it() -> None:
    done = run(
        "import asyncio, sys; sys.modules['google.genai'] = None\n"
        "from duologue.providers import gemini\n"
        "asyncio.run(gemini.LLM('m', api_key='k').prepare('', []))"
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.endswith("google.genai is not installed: pip install 'duologue[gemini-text]'"), last
