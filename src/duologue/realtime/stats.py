"""Counters of a session: what was lost, dropped or not understood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Protocol, Self, runtime_checkable


@dataclass(frozen=True, slots=True)
class ConnectionStats:
    """What one connection has dropped or not understood so far; instances can be added.

    Attributes:
        dropped_input_s: Seconds of input audio dropped because the connection was too slow.
        dropped_images: Images replaced by a newer one before they were sent, or too large to send.
        dropped_reply_s: Seconds of received reply audio dropped because it arrived too fast.
        unknown_messages: Messages of a type that this version does not know.
        malformed_messages: Messages that could not be decoded, or only in part.
        repeated_messages: Messages that had the id of an earlier one; those with the same content
            too were dropped.
    """

    dropped_input_s: float = 0.0
    dropped_images: int = 0
    dropped_reply_s: float = 0.0
    unknown_messages: int = 0
    malformed_messages: int = 0
    repeated_messages: int = 0

    def __add__(self, other: Self) -> Self:
        return type(self)(
            *(getattr(self, field.name) + getattr(other, field.name) for field in fields(self))
        )


@dataclass(frozen=True, slots=True)
class RealtimeStats:
    """Counters of a session over all its connections.

    Attributes:
        connections: Connections that became live.
        lost_input_s: Seconds of input audio that no connection received, because an outage was
            longer than `ReconnectPolicy.keep_s`.
        stale_outputs: Outputs of the model that an interruption had made stale.
        connection: The sum over all connections.
    """

    connections: int
    lost_input_s: float
    stale_outputs: int
    connection: ConnectionStats

    @property
    def reconnects(self) -> int:
        """How often a connection was replaced, whether it was lost or too old."""
        return max(0, self.connections - 1)


@runtime_checkable
class MeasuredConnection(Protocol):
    """A `Connection`, or a wire, that counts what it drops."""

    def stats(self) -> ConnectionStats:
        """Return the counters so far."""
        ...


@runtime_checkable
class MeasuredCodec(Protocol):
    """A `Codec` that counts what it does not understand."""

    @property
    def unknown(self) -> Mapping[str, int]:
        """Messages of types that this version does not know, by type."""
        ...

    @property
    def malformed(self) -> int:
        """Messages that could not be decoded, or only in part."""
        ...


@runtime_checkable
class DeduplicatingCodec(Protocol):
    """A `Codec` of a protocol whose messages have ids."""

    @property
    def repeated(self) -> int:
        """Messages that had the id of an earlier one."""
        ...
