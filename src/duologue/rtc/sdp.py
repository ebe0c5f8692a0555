"""The few lines of a session description that are ours to say (RFC 8866, RFC 7587)."""

from __future__ import annotations

import re

from duologue.rtc.config import PeerError

MOST_CHARS = 65536
"""Longest description taken."""

MOST_CANDIDATES = 64
"""Most candidates taken: each one makes us send packets to it."""

_OPUS = re.compile(r"^a=rtpmap:(\d+) opus/48000(?:/\d)?\s*$", re.IGNORECASE | re.MULTILINE)
_MDNS = re.compile(r"^(a=candidate:(?:\S+ ){4})\S+\.local ", re.MULTILINE)


def check(sdp: str) -> None:
    """Raise `PeerError` for a description that is no audio call or is too large to be one."""
    if len(sdp) > MOST_CHARS:
        raise PeerError(f"the description has {len(sdp)} characters; {MOST_CHARS} are taken")
    if sdp.count("a=candidate:") > MOST_CANDIDATES:
        raise PeerError(f"the description has over {MOST_CANDIDATES} candidates")
    if "\nm=audio " not in sdp:
        raise PeerError("the description has no audio: ask for the microphone before the offer")
    if not _OPUS.search(sdp):
        raise PeerError("the description has no Opus, the one audio codec spoken here")


def say_opus(sdp: str, receive_rate: int) -> str:
    """Add what we want to receive: FEC, mono, and no more bandwidth than is decoded (Hz).

    Without ``useinbandfec=1`` from us a browser sends no FEC (RFC 7587, section 6.1).
    """

    def add(match: re.Match[str]) -> str:
        kind = match.group(1)
        own = (
            f"a=fmtp:{kind} minptime=10;useinbandfec=1;stereo=0;sprop-stereo=0;"
            f"maxplaybackrate={receive_rate}"
        )
        return f"{match.group(0).rstrip()}\r\n{own}\r"

    return _OPUS.sub(add, sdp)


def name_loopback(sdp: str) -> str:
    """Put 127.0.0.1 for names like ``x.local``, for a far side on this machine.

    A browser hides its addresses behind multicast names until a microphone is granted. Asking
    the network for them takes time and often fails; it is the far side's own checks that find us.
    """
    return _MDNS.sub(r"\g<1>127.0.0.1 ", sdp)
