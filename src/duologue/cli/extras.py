"""The extras, what each is for, and which of their packages a command lacks."""

from __future__ import annotations

from duologue._optional import is_installed

EXTRAS = {
    "local": (
        "the built-in engine",
        ("earshot", "hibari", "onnxruntime", "xllamacpp", "soundfile", "PIL", "filelock"),
    ),
    "browser": ("the page to talk from", ("starlette", "uvicorn", "websockets", "aiortc")),
    "server": ("the page's web server", ("starlette", "uvicorn", "websockets")),
    "webrtc": ("calls from a browser, or to OpenAI", ("aiortc",)),
    "mic": ("microphone and loudspeaker", ("sounddevice", "pywebrtc_audio")),
    "wav": ("audio files", ("soundfile",)),
    "video": ("images", ("PIL",)),
    "openai": (
        "OpenAI Realtime, and language models behind an OpenAI-compatible address",
        ("httpx", "websockets", "orjson", "pybase64", "earshot"),
    ),
    "anthropic": ("Claude as a text model", ("anthropic", "httpx2")),
    "gemini-text": ("Gemini as a text model", ("google.genai", "httpx2")),
    "gemini": ("Gemini Live", ("websockets", "orjson", "pybase64", "earshot")),
    "vertex": (
        "Gemini Live on Vertex AI",
        ("google.auth", "httpx", "websockets", "orjson", "pybase64", "earshot"),
    ),
    "aws": (
        "Amazon Nova Sonic",
        ("aws_sdk_bedrock_runtime", "h2", "orjson", "pybase64", "earshot"),
    ),
    "qwen": ("Qwen Omni", ("websockets", "orjson", "pybase64", "earshot")),
    "cartesia": ("Cartesia's voices and recogniser", ("websockets", "orjson", "pybase64")),
    "deepgram": ("Deepgram's voices and recognisers", ("websockets", "orjson", "pybase64")),
    "elevenlabs": ("ElevenLabs' voices and recogniser", ("websockets", "orjson", "pybase64")),
    "websocket": ("providers of your own over WebSocket", ("websockets",)),
    "otel": (
        "traces and figures for OpenTelemetry",
        ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"),
    ),
    "parquet": ("tables of duologue batch as Parquet", ("pyarrow",)),
    "prometheus": ("figures for Prometheus", ("prometheus_client",)),
    "ray": ("calls on several machines", ("ray", "starlette", "uvicorn", "websockets", "aiortc")),
    "redis": ("conversations on a Redis server", ("redis",)),
    "sip": ("calls over SIP", ("starlette", "uvicorn", "baresip")),
    "upload": ("copies of recordings in object stores", ("fsspec",)),
    "simulate": (
        "providers on this machine",
        ("aiohttp", "aiortc", "h2", "cryptography", "jwt", "orjson", "pybase64", "yaml"),
    ),
    "telephone": (
        "callers on a telephone",
        ("starlette", "uvicorn", "websockets", "httpx", "jwt", "cryptography"),
    ),
}
"""For each extra, what it is for and the modules that it adds to a plain installation."""


def require_extras(command: str, *extras: str) -> None:
    """Raise `MissingExtraError`, which names everything that a command lacks in one line."""
    lacking = [
        extra for extra in extras if any(not is_installed(name) for name in EXTRAS[extra][1])
    ]
    if not lacking:
        return
    from duologue.errors import MissingExtraError

    names = {name: None for extra in lacking for name in EXTRAS[extra][1] if not is_installed(name)}
    raise MissingExtraError(
        f"duologue {command} needs {', '.join(names)}: pip install 'duologue[{','.join(extras)}]'",
        name=next(iter(names)),
    )
