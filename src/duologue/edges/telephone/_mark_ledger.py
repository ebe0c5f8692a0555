"""Count what the caller has heard, by the marks that the carrier returns."""

# A mark is a message that the carrier returns when it has played the audio before it. Its name says
# which audio that is: the epoch, and the samples given to the edge up to there, as in "3:12800".
#
#     given ──┬────────┬────────┬──▶     samples since the stream began
#          mark 0:800  0:1600  0:2400
#
# - A mark of the current epoch proves that everything up to it was played. Marks that come out of
#   order, twice or never do no harm, because the count never decreases and never guesses.
# - `clear` begins the next epoch, before the carrier gets to know. Carriers return the marks of the
#   audio that they dropped at once (Twilio documents it), or never (a simulator believes that).
#   Either way they are of an older epoch and prove nothing.
# - Dropped audio counts as played in `AgentInput.report_played`, and so it does here: the next mark
#   that comes back includes it.

from __future__ import annotations

from duologue.audio import FRAME_MS


class MarkLedger:
    """Which of the audio given to a carrier it has played.

    Attributes:
        given: Samples given to the carrier so far.
        played: Samples of them that were played, or dropped by `clear`, as far as is proven.
        epoch: Number of clears so far.
        stale: Marks of an older epoch that were returned.
        unknown: Marks that were returned and never sent.
    """

    __slots__ = (
        "_epoch_start",
        "_interval",
        "_marked",
        "epoch",
        "given",
        "played",
        "stale",
        "unknown",
    )

    def __init__(self, rate: int, interval_ms: int = 5 * FRAME_MS) -> None:
        self._interval = rate * interval_ms // 1000
        self._marked = 0
        self._epoch_start = 0
        self.given = 0
        self.played = 0
        self.epoch = 0
        self.stale = 0
        self.unknown = 0

    @property
    def outstanding(self) -> int:
        """Samples that were given and not proven to be played."""
        return self.given - self.played

    @property
    def unmarked(self) -> int:
        """Samples given since the last mark."""
        return self.given - self._marked

    def add(self, samples: int) -> str | None:
        """Count audio given to the carrier; return the name of a mark to send after it, if due."""
        self.given += samples
        return self.mark() if self.given - self._marked >= self._interval else None

    def mark(self) -> str | None:
        """Return the name of a mark to send now; None if nothing was given since the last one."""
        if not self.unmarked:
            return None
        self._marked = self.given
        return f"{self.epoch}:{self.given}"

    def returned(self, name: str) -> int | None:
        """Take a mark that came back; return ``played`` if it has grown, and None otherwise."""
        epoch, _, samples = name.partition(":")
        if not (_is_count(epoch) and _is_count(samples)):
            self.unknown += 1
            return None
        if int(epoch) < self.epoch:
            self.stale += 1
            return None
        if int(epoch) > self.epoch or int(samples) > self._marked:
            self.unknown += 1
            return None
        if int(samples) <= self.played:
            return None
        self.played = int(samples)
        return self.played

    def clear(self) -> bool:
        """Begin the next epoch; return whether anything was given in the last one.

        If so, the carrier must get the clear, even if the marks prove that all of it was played: a
        needless clear does no harm, and a missing one lets the agent talk on for seconds.
        """
        given = self.given > self._epoch_start
        self.epoch += 1
        self._epoch_start = self._marked = self.played = self.given
        return given


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19
