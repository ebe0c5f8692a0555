"""Check and change the few lines of a session description that matter here (RFC 8866, RFC 7587)."""

from __future__ import annotations

import re

from duologue.rtc._candidates import CandidateGate
from duologue.rtc.config import PeerError

MAX_CHARS = 65536
"""Longest description in characters."""

MAX_LINES = 1500
"""Most lines of a description."""

MAX_SECTIONS = 8
"""Most media sections of a description; each may have sockets of its own."""

MAX_LISTED_CANDIDATES = 64
"""Most candidates in a description; far fewer are used (see `CandidateGate`)."""

MAX_CODECS = 256
"""Most codecs of a description; each is compared with every other."""

VP8 = "VP8"
"""The only supported video codec, because the size of its frames is known before decoding."""

_CANDIDATE = "a=candidate:"

_OPUS = re.compile(r"^a=rtpmap:(\d+) opus/48000(?:/\d)?\s*$", re.IGNORECASE | re.MULTILINE)
_MDNS = re.compile(r"^(a=candidate:(?:\S+ ){4})\S+\.local ", re.MULTILINE)
_MDNS_CANDIDATE = re.compile(r"^((?:\S+ ){4})\S+\.local ")


def sanitize(sdp: str, gate: CandidateGate) -> str:
    """Return the description without the candidates that ``gate`` refuses, with CRLF line ends.

    Raises:
        PeerError: The description contains no audio call, or is too large.
    """
    if len(sdp) > MAX_CHARS:
        raise PeerError(f"the description has {len(sdp)} characters; {MAX_CHARS} are taken")
    # Split it as aiortc does, so that no unusual character can hide a line.
    lines = sdp.splitlines()
    for limit, found, what in (
        (MAX_LINES, len(lines), "lines"),
        (MAX_SECTIONS, sum(line.startswith("m=") for line in lines), "sections"),
        (MAX_LISTED_CANDIDATES, sum(line.startswith(_CANDIDATE) for line in lines), "candidates"),
        (MAX_CODECS, sum(line.startswith("a=rtpmap:") for line in lines), "codecs"),
        (MAX_CODECS, max((len(line.split()) for line in lines), default=0), "words in a line"),
    ):
        if found > limit:
            raise PeerError(f"the description has over {limit} {what}")
    refused = gate.refused
    kept = [
        line
        for line in lines
        if not line.startswith(_CANDIDATE) or gate.admits(line[len(_CANDIDATE) :])
    ]
    if gate.refused != refused:
        # Other addresses may still be learnt from the far side's checks.
        kept = [line for line in kept if not line.startswith("a=end-of-candidates")]
    text = "".join(f"{line}\r\n" for line in kept)
    if "\nm=audio " not in text:
        raise PeerError("the description has no audio: ask for the microphone before the offer")
    if not _OPUS.search(text):
        raise PeerError("the description has no Opus, the one audio codec spoken here")
    return text


def add_opus_parameters(sdp: str, receive_rate: int) -> str:
    """Add what we want to receive: FEC, mono, and no more bandwidth than is decoded (Hz).

    A browser sends no FEC unless our description contains ``useinbandfec=1`` (RFC 7587, section
    6.1).
    """

    def add(match: re.Match[str]) -> str:
        kind = match.group(1)
        own = (
            f"a=fmtp:{kind} minptime=10;useinbandfec=1;stereo=0;sprop-stereo=0;"
            f"maxplaybackrate={receive_rate}"
        )
        return f"{match.group(0).rstrip()}\r\n{own}\r"

    return _OPUS.sub(add, sdp)


def replace_mdns_names(sdp: str) -> str:
    """Replace names such as ``x.local`` by 127.0.0.1, for a far side on this machine.

    A browser hides its addresses behind multicast DNS names until a microphone is granted.
    Resolving them takes time and often fails, and is not needed, because the far side's own checks
    find us.
    """
    return _MDNS.sub(r"\g<1>127.0.0.1 ", sdp)


def replace_mdns_name(candidate: str) -> str:
    """Do the same for one candidate, given as the text after ``candidate:``."""
    return _MDNS_CANDIDATE.sub(r"\g<1>127.0.0.1 ", candidate)
