"""How Cartesia is reached, and the kinds of its errors."""

from __future__ import annotations

from duologue.errors import ErrorKind
from duologue.providers._speech_service import Vendor

CARTESIA = Vendor(
    name="Cartesia",
    url="wss://api.cartesia.ai",
    variables=("CARTESIA_API_KEY",),
    auth=lambda key: {"Authorization": f"Bearer {key}"},
    headers={"Cartesia-Version": "2026-03-01"},
    errors={
        "400": ErrorKind.FATAL,
        "401": ErrorKind.FATAL,
        "402": ErrorKind.FATAL,
        "403": ErrorKind.FATAL,
        "404": ErrorKind.FATAL,
        "429": ErrorKind.RETRY,
        "1000": ErrorKind.RECYCLE,
        "concurrency_limited": ErrorKind.RECYCLE,
        "invalid_request": ErrorKind.FATAL,
        "quota_exceeded": ErrorKind.FATAL,
        "voice_not_found": ErrorKind.FATAL,
        "model_not_found": ErrorKind.FATAL,
    },
    extra="cartesia",
)
