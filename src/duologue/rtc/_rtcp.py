"""Statistics that a receiver reports to a sender: loss and jitter (RFC 3550, section 6.4.1)."""

from __future__ import annotations

from duologue.rtc.opus import RTP_RATE

_MAX_LOST = (1 << 23) - 1


class ReceptionStatistics:
    """Statistics of one received RTP stream (RFC 3550, appendices A.1, A.3 and A.8).

    Replaces aiortc's own statistics, whose highest sequence number stays 16 bits wide after a wrap
    and whose jitter jumps when timestamps wrap. Its members have the names that aiortc's reports
    read.
    """

    __slots__ = (
        "_base",
        "_expected_prior",
        "_jitter",
        "_received_prior",
        "_transit",
        "max_seq",
        "packets_received",
    )

    def __init__(self) -> None:
        self._base: int | None = None
        self._jitter = 0.0
        self._transit: int | None = None
        self._expected_prior = 0
        self._received_prior = 0
        self.max_seq = 0
        """Highest sequence number received, extended by its wraps to 32 bits."""
        self.packets_received = 0

    def add(self, sequence: int, timestamp: int, arrived: float) -> None:
        """Count a packet; ``arrived`` is in seconds, ``timestamp`` in 48 kHz samples."""
        self.packets_received += 1
        if self._base is None:
            self._base = self.max_seq = sequence
        else:
            step = (sequence - self.max_seq) & 0xFFFF
            if not 0 < step < 0x8000:
                return
            self.max_seq += step
        transit = (int(arrived * RTP_RATE) - timestamp) & 0xFFFFFFFF
        if self._transit is not None:
            change = (transit - self._transit) & 0xFFFFFFFF
            change = min(change, 0x100000000 - change)
            # A change over 10 s is a new time base, not jitter.
            if change < 10 * RTP_RATE:
                self._jitter += (change - self._jitter) / 16
        self._transit = transit

    @property
    def packets_expected(self) -> int:
        """Packets that were sent, according to the sequence numbers."""
        return 0 if self._base is None else self.max_seq - self._base + 1

    @property
    def packets_lost(self) -> int:
        """Expected packets minus received ones; negative after duplicates."""
        lost = self.packets_expected - self.packets_received
        return max(-_MAX_LOST - 1, min(lost, _MAX_LOST))

    @property
    def fraction_lost(self) -> int:
        """Fraction lost since the last read, in 1/256. Reading it starts a new interval."""
        expected = self.packets_expected - self._expected_prior
        received = self.packets_received - self._received_prior
        self._expected_prior = self.packets_expected
        self._received_prior = self.packets_received
        lost = expected - received
        return min(255, (lost << 8) // expected) if expected > 0 and lost > 0 else 0

    @property
    def jitter(self) -> int:
        """Smoothed difference of transit times, in 48 kHz samples."""
        return int(self._jitter)
