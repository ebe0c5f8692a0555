"""How Deepgram is reached, and the kinds of its errors."""

from __future__ import annotations

from duologue.errors import ErrorKind
from duologue.providers._speech_service import Vendor

DEEPGRAM = Vendor(
    name="Deepgram",
    url="wss://api.deepgram.com",
    variables=("DEEPGRAM_API_KEY",),
    auth=lambda key: {"Authorization": f"Token {key}"},
    errors={
        "400": ErrorKind.FATAL,
        "401": ErrorKind.FATAL,
        "402": ErrorKind.FATAL,
        "403": ErrorKind.FATAL,
        "404": ErrorKind.FATAL,
        "429": ErrorKind.RETRY,
        "1000": ErrorKind.RECYCLE,
        "1008": ErrorKind.RECYCLE,
        "NET-0000": ErrorKind.RECYCLE,
        "NET-0001": ErrorKind.RECYCLE,
        "NET-0002": ErrorKind.RECYCLE,
        "NET-0003": ErrorKind.RECYCLE,
        "NET-0004": ErrorKind.RECYCLE,
        "DATA-0000": ErrorKind.RECYCLE,
        "DATA-0002": ErrorKind.RECYCLE,
        "BIG-0000": ErrorKind.RECYCLE,
        "MESSAGE-0000": ErrorKind.FATAL,
    },
    extra="deepgram",
)
