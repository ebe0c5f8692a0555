"""How Cartesia is reached, and the kinds of its errors."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from duologue.errors import ErrorKind
from duologue.providers._speech_service import SpeechService
from duologue.realtime.network import ApiKey

URL = "wss://api.cartesia.ai"
VERSION = "2026-03-01"
"""API version of the messages that the codecs speak."""

_ERRORS: Mapping[str, ErrorKind] = {
    "400": ErrorKind.FATAL,
    "401": ErrorKind.FATAL,
    "402": ErrorKind.FATAL,
    "403": ErrorKind.FATAL,
    "404": ErrorKind.FATAL,
    "429": ErrorKind.RETRY,
    "1000": ErrorKind.RECYCLE,
    "concurrency_limited": ErrorKind.RETRY,
    "quota_exceeded": ErrorKind.FATAL,
    "voice_not_found": ErrorKind.FATAL,
    "model_not_found": ErrorKind.FATAL,
}


def cartesia(
    *,
    base_url: str | None,
    api_key: ApiKey | None,
    headers: Mapping[str, str] | None,
    proxy: str | None,
    ssl_context: ssl.SSLContext | None,
) -> SpeechService:
    """Return the service, with the key of ``CARTESIA_API_KEY`` if none is given."""
    return SpeechService(
        "Cartesia",
        url=URL,
        base_url=base_url,
        api_key=api_key,
        variables=("CARTESIA_API_KEY",),
        auth=lambda key: {"Authorization": f"Bearer {key}"},
        headers={"Cartesia-Version": VERSION, **(headers or {})},
        proxy=proxy,
        ssl_context=ssl_context,
        errors=_ERRORS,
        extra="cartesia",
    )
