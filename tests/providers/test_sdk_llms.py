"""What text models over a vendor's own SDK share: connections, interruptions, lost servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from importlib import import_module
from typing import Protocol, cast

import pytest

from duologue.errors import ErrorKind, SessionError
from duologue.items import Item, UserItem
from duologue.json_types import JsonObject
from duologue.pipeline.interfaces import LLM, TextDelta
from llm_server import Answer, Request, collect, serving

HISTORY: list[Item] = [UserItem("u", "Hello.")]

_MESSAGE: JsonObject = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 7, "output_tokens": 1},
}
_CLAUDE_BEGIN: list[JsonObject] = [
    {"type": "message_start", "message": _MESSAGE},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "One"},
    },
]
_CLAUDE_END: list[JsonObject] = [
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 5},
    },
    {"type": "message_stop"},
]
_GEMINI_CONTENT: JsonObject = {"role": "model", "parts": [{"text": "One"}]}
_GEMINI_BEGIN: list[JsonObject] = [{"candidates": [{"content": _GEMINI_CONTENT, "index": 0}]}]
_GEMINI_END: list[JsonObject] = [{"candidates": [{"finishReason": "STOP", "index": 0}]}]

STREAMS = {"anthropic": (_CLAUDE_BEGIN, _CLAUDE_END), "gemini": (_GEMINI_BEGIN, _GEMINI_END)}
"""Of each provider, a stream up to its first text, "One", and the rest of it."""


class SDKModel(LLM, Protocol):
    async def close(self) -> None: ...


class Service:
    """One provider, and how its server writes."""

    def __init__(self, name: str) -> None:
        self._module = import_module(f"duologue.providers.{name}")
        self.begin, self.end = (b"".join(map(_event, part)) for part in STREAMS[name])

    def llm(self, base_url: str, **options: object) -> SDKModel:
        made: object = self._module.LLM("m", base_url=base_url, api_key="secret", **options)
        return cast("SDKModel", made)

    @asynccontextmanager
    async def serve(
        self, answer: Answer, **options: object
    ) -> AsyncIterator[tuple[SDKModel, list[Request]]]:
        async with serving(answer) as (url, requests):
            llm = self.llm(url, **options)
            try:
                yield llm, requests
            finally:
                await llm.close()


def _event(event: JsonObject) -> bytes:
    name = f"event: {event['type']}\n" if "type" in event else ""
    return f"{name}data: {json.dumps(event)}\n\n".encode()


@pytest.fixture(params=[("anthropic", "anthropic"), ("gemini", "google.genai")], ids=lambda p: p[0])
def service(request: pytest.FixtureRequest) -> Service:
    name, sdk = request.param
    pytest.importorskip(sdk, reason="needs the extra with the SDK")
    return Service(name)


async def test_requests_share_one_connection(service: Service) -> None:
    async def answer(request: Request) -> None:
        await request.write(service.begin + service.end)
        await request.end()

    async with service.serve(answer) as (llm, requests):
        for _ in range(3):
            assert TextDelta("One") in await collect(llm.generate("", HISTORY, []))
    assert [request.connection for request in requests] == [1, 1, 1]


async def test_closing_the_generator_closes_the_response_at_once(service: Service) -> None:
    async def answer(request: Request) -> None:
        await request.write(service.begin)
        await asyncio.wait_for(request.gone.wait(), 5)
        request.drop()

    async with service.serve(answer) as (llm, requests):
        async with aclosing(llm.generate("", HISTORY, [])) as stream:
            assert await anext(stream) == TextDelta("One")
        await asyncio.wait_for(requests[0].gone.wait(), 1)


@pytest.mark.parametrize("began", [True, False])
async def test_cancelled_task_closes_the_response_at_once(service: Service, began: bool) -> None:
    reached = asyncio.Event()

    async def answer(request: Request) -> None:
        if began:
            await request.write(service.begin)
        else:
            reached.set()
        await asyncio.wait_for(request.gone.wait(), 5)
        request.drop()

    async with service.serve(answer) as (llm, requests):

        async def read() -> None:
            async with aclosing(llm.generate("", HISTORY, [])) as stream:
                async for _ in stream:
                    reached.set()

        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(read())
            await reached.wait()
            reading.cancel()
        await asyncio.wait_for(requests[0].gone.wait(), 1)


async def test_connection_that_drops_in_mid_answer_is_an_error(service: Service) -> None:
    async def answer(request: Request) -> None:
        await request.write(service.begin)
        request.drop()

    async with service.serve(answer) as (llm, requests):
        with pytest.raises(SessionError, match=r"http://127\.0\.0\.1:\d+ broke off") as caught:
            await collect(llm.generate("", HISTORY, []))
    assert (caught.value.code, caught.value.kind) == ("connection", ErrorKind.RETRY)
    assert len(requests) == 1


async def test_server_that_does_not_answer_or_is_not_there_is_an_error(service: Service) -> None:
    async def answer(request: Request) -> None:
        await asyncio.wait_for(request.gone.wait(), 5)
        request.drop()

    async with service.serve(answer, timeout=0.1) as (llm, requests):
        with pytest.raises(SessionError, match="does not answer"):
            await collect(llm.generate("", HISTORY, []))
        assert len(requests) == 1
    llm = service.llm("http://user:hunter2@127.0.0.1:1")
    with pytest.raises(SessionError, match=r"http://127\.0\.0\.1:1 can't be reached") as caught:
        await collect(llm.generate("", HISTORY, []))
    assert "hunter2" not in str(caught.value)
    await llm.close()


async def test_redirect_is_not_followed_because_the_key_would_be_sent_along(
    service: Service,
) -> None:
    async def answer(request: Request) -> None:
        await request.refuse(307, "", location="http://127.0.0.2:9/x")

    async with service.serve(answer) as (llm, requests):
        with pytest.raises(SessionError, match=r"redirects to http://127\.0\.0\.2:9/x") as caught:
            await collect(llm.generate("", HISTORY, []))
    assert caught.value.kind is ErrorKind.FATAL
    assert len(requests) == 1
