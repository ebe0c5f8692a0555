"""Sessions of each provider with the echo provider."""

from __future__ import annotations

from duologue.agent.agent import Agent
from duologue.agent.barge_in import BargeInPolicy
from duologue.edges.protocol import Edge
from duologue.realtime.realtime import Realtime

NAMES = {
    "openai": "OpenAI, WebSocket",
    "gemini": "Gemini, WebSocket",
    "nova": "Nova, HTTP/2",
    "qwen": "Qwen, WebSocket",
}
"""The provider's name in the figures."""


def realtime(name: str, url: str, *, video: bool = False, **options: object) -> Realtime:
    """Return a session with the provider at ``url``, with default options and its own VAD."""
    seen = "images" if video else "off"
    match name:
        case "openai":
            from duologue.providers import openai

            return openai.Realtime(transport="websocket", base_url=url, api_key="k", video="off")
        case "gemini":
            from duologue.providers import gemini

            return gemini.Realtime(base_url=url, api_key="k", video=seen, **options)
        case "qwen":
            from duologue.providers import qwen

            return qwen.Realtime(base_url=url, api_key="k", video=seen, **options)
        case "nova":
            from duologue.providers import aws

            keys = aws.Credentials("AKIDBENCH", "secret")
            return aws.Realtime(base_url=url, credentials=keys)
    raise SystemExit(f"no provider is called {name!r}; there are: {', '.join(NAMES)}")


def talker(edge: Edge, llm: Realtime) -> Agent:
    """Return an agent for an echo.

    Nothing must interrupt or hold it: an echo speaks while the person does.
    """
    return Agent(edge=edge, llm=llm, barge_in=BargeInPolicy(enabled=False))


def vad_note(llm: Realtime) -> str:
    """Return a note about local voice activity detection."""
    if llm.capabilities.speech_detection != "local":
        return ""
    return f"; with its own voice activity detection ({type(llm.vad).__name__})"
