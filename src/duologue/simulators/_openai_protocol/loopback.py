"""Sends the client's audio straight back as one endless reply, to measure everything in between."""

from __future__ import annotations

from dataclasses import replace

from duologue.audio import Samples
from duologue.simulators._openai_protocol.reply import OutgoingReply
from duologue.simulators._openai_protocol.responses import Responses


class Loopback:
    """Starts its reply with the first audio, and never ends it."""

    def __init__(self, responses: Responses) -> None:
        self._responses = responses
        self._reply: OutgoingReply | None = None

    def push(self, samples: Samples) -> None:
        """Send audio back, at the output rate of the backend."""
        if self._reply is None:
            spec = self._responses.reply_spec(None)
            self._reply = self._responses.begin(replace(spec, modality="audio", limit=None))
        self._reply.add_audio(samples)
