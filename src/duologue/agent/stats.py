"""Counters of a conversation: what was lost, dropped, late or not understood."""

from __future__ import annotations

from dataclasses import dataclass

from duologue.edges.protocol import EdgeStats


@dataclass(frozen=True, slots=True)
class AgentStats:
    """What a conversation has lost, dropped, or got late so far; see `Agent.stats`.

    Attributes:
        connections: Connections to the model that became live.
        reconnects: How often a connection was replaced, whether it was lost or too old.
        lost_input_s: Seconds of input audio that no connection received, because an outage was
            longer than `ReconnectPolicy.keep_s`.
        dropped_input_s: Seconds of input audio dropped because the connection was too slow.
        dropped_images: Images replaced by a newer one before they were sent, or too large to send.
        dropped_reply_s: Seconds of reply audio dropped because it arrived too fast.
        stale_outputs: Outputs of the model that an interruption had made stale.
        unknown_messages: Messages of the service of a type that this version does not know.
        malformed_messages: Messages of the service that could not be decoded, or only in part.
        repeated_messages: Messages of the service that had the id of an earlier one; those with
            the same content too were dropped.
        stale_audio_s: Seconds of agent audio that came after the interruption that made it stale.
        overflowed_audio_s: Seconds of agent audio rejected because ten minutes were waiting.
        starved_s: Seconds in which a speech had started and had no audio to play.
        waiting_audio_s: Seconds of agent audio that wait now, and are played after the present.
        caught_up_audio_s: Seconds by which late agent audio was shortened to be on time again.
        dropped_events: Events dropped because their handler was too slow.
        edge: The counters of the edge.
    """

    connections: int
    reconnects: int
    lost_input_s: float
    dropped_input_s: float
    dropped_images: int
    dropped_reply_s: float
    stale_outputs: int
    unknown_messages: int
    malformed_messages: int
    repeated_messages: int
    stale_audio_s: float
    overflowed_audio_s: float
    starved_s: float
    waiting_audio_s: float
    caught_up_audio_s: float
    dropped_events: int
    edge: EdgeStats
