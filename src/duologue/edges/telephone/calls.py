"""A telephone call: who calls whom, and what can be done with the call beside its audio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from duologue.errors import DuologueError


class TelephoneError(DuologueError):
    """A carrier or the other side refused; ``status`` is that of HTTP or SIP, 0 without one."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneCall:
    """A call, as its carrier describes it.

    Args:
        carrier: ``twilio``, ``telnyx``, ``plivo`` or ``vonage``, or ``sip``.
        id: The carrier's id of the call.
        caller: The number that calls, as the carrier writes it; a claim, which can be forged.
        called: The number that was called.
        parameters: Values given to `dial`, or to the stream by a webhook of your own.
        direction: ``outbound`` for a call that `dial` began.
        answered_by: Who answered an outbound call, in the carrier's words, such as ``human`` or
            ``machine_start``; empty if it does not say, or has not said it yet
            (`MediaStream.wait_answered_by`).
    """

    carrier: str
    id: str
    caller: str = ""
    called: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    direction: Literal["inbound", "outbound"] = "inbound"
    answered_by: str = ""


class PhoneControl(Protocol):
    """What a carrier can do with one call beside its audio.

    Every method raises `TelephoneError` if the carrier refuses, and `UnsupportedError` if it can't.
    """

    async def hang_up(self) -> None:
        """End the call."""

    async def transfer(self, to: str) -> None:
        """Connect the caller with another number; the stream ends."""

    async def send_digits(self, digits: str) -> None:
        """Press keys; ``w`` waits for half a second."""
