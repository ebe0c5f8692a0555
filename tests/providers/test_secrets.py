"""Neither logs nor the repr of a configuration contain a key or token."""

import asyncio
import logging

import pytest

pytest.importorskip("websockets", reason="the openai extra is not installed")
pytest.importorskip("aws_sdk_bedrock_runtime", reason="the aws extra is not installed")
pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("aiortc", reason="the openai extra is not installed")

from duologue.providers import anthropic, aws, gemini, openai, qwen
from duologue.providers.gemini._auth import resolve_auth
from duologue.providers.openai._config import RealtimeConfig
from duologue.providers.openai._session_json import OpenAISession
from duologue.realtime.codec import SessionSetup
from duologue.testing import GeminiSimulator, NovaSimulator, OpenAISimulator, QwenSimulator
from fake_edge import FakeEdge, join_agent

TOKEN = "FwoGZXIvYXdzEXAMPLETOKEN"  # noqa: S105 - not a real one


def _nova(simulator):
    keys = simulator.credentials
    keys = aws.Credentials(keys.access_key, keys.secret_key, session_token=TOKEN)
    return aws.Realtime(base_url=simulator.url, credentials=keys)


CASES = {
    "openai": (
        OpenAISimulator,
        lambda s: openai.Realtime(transport="websocket", base_url=s.url, api_key=s.key),
    ),
    "openai over WebRTC": (
        OpenAISimulator,
        lambda s: openai.Realtime(base_url=s.url, api_key=s.key),
    ),
    "gemini": (GeminiSimulator, lambda s: gemini.Realtime(base_url=s.url, api_key=s.key)),
    "qwen": (QwenSimulator, lambda s: qwen.Realtime(base_url=s.url, api_key=s.key)),
    "nova": (NovaSimulator, _nova),
}


@pytest.mark.parametrize("name", CASES)
async def test_debug_log_contains_no_key_and_no_transcript(name, caplog):
    simulate, make = CASES[name]
    with caplog.at_level(logging.DEBUG):
        async with (
            simulate(replies=["Marmalade."]) as simulator,
            join_agent(make(simulator), FakeEdge()) as agent,
            asyncio.timeout(20),
        ):
            speech = agent.simple_response("Whisper it.")
            await speech
        lines = [f"{record.name}: {record.getMessage()}" for record in caplog.records]
    assert speech.text == "Marmalade."
    secrets = [TOKEN]
    if name == "nova":
        secrets.append(simulator.credentials.secret_key)
    else:
        secrets.append(simulator.key)
    for secret in [*secrets, "Marmalade", "Whisper"]:
        assert not [line for line in lines if secret in line][:3]


def test_repr_of_a_configuration_contains_no_secret():
    secret = "hunter2-hunter2"  # noqa: S105 - not a real one
    extra = {"tools": [{"type": "mcp", "authorization": secret}]}
    address = f"http://me:{secret}@127.0.0.1:1"
    options = {"vertex": None, "api_version": None}
    shown = [
        openai.Realtime(api_key=secret, headers={"X": secret}, extra=extra, base_url=address),
        openai.LLM("m", api_key=secret, base_url=address),
        anthropic.LLM("m", api_key=secret, base_url=address, headers={"X": secret}),
        gemini.LLM("m", api_key=secret, base_url=address, headers={"X": secret}),
        OpenAISession(RealtimeConfig(extra=extra)),
        gemini.Realtime(api_key=secret, headers={"X": secret}, base_url=address, extra=extra),
        resolve_auth(api_key=secret, token=None, base_url=address, **options),
        resolve_auth(api_key=None, token=f"auth_tokens/{secret}", base_url=address, **options),
        qwen.Realtime(api_key=secret, headers={"X": secret}, extra=extra, base_url=address),
        aws.Credentials("AKID", secret, session_token=secret),
        aws.Realtime(credentials=aws.Credentials("AKID", secret), proxy=address),
    ]
    for one in shown:
        parts = [one, *vars(one).values()] if hasattr(one, "__dict__") else [one]
        if hasattr(one, "open"):
            parts.append(one.open(SessionSetup()))
        for part in parts:
            if not isinstance(part, str | dict):
                assert secret not in repr(part)
