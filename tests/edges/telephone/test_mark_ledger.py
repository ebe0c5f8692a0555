"""What the marks of a carrier prove."""

from hypothesis import given
from hypothesis import strategies as st

from duologue.edges.telephone._mark_ledger import MarkLedger


def ledger_with(frames, rate=8000):
    ledger = MarkLedger(rate)
    names = [ledger.add(160) for _ in range(frames)]
    return ledger, [name for name in names if name is not None]


def test_a_mark_follows_every_100_ms():
    ledger, names = ledger_with(12)
    assert names == ["0:800", "0:1600"]
    assert (ledger.given, ledger.unmarked, ledger.outstanding) == (1920, 320, 1920)
    assert ledger.mark() == "0:1920"
    assert ledger.mark() is None


def test_a_returned_mark_proves_what_was_before_it():
    ledger, _ = ledger_with(12)
    assert ledger.returned("0:1600") == 1600
    assert ledger.returned("0:800") is None  # late, and known
    assert ledger.played == 1600


def test_marks_of_dropped_audio_prove_nothing():
    ledger, names = ledger_with(12)
    assert ledger.clear()
    assert [ledger.returned(name) for name in names] == [None, None]
    assert (ledger.stale, ledger.played, ledger.epoch) == (2, 1920, 1)
    ledger.add(160)
    assert ledger.mark() == "1:2080"
    assert ledger.returned("1:2080") == 2080  # dropped audio counts as played


def test_a_clear_is_needed_once_after_audio():
    ledger, _ = ledger_with(0)
    assert not ledger.clear()
    ledger.add(160)
    name = ledger.mark()
    ledger.returned(name)
    assert ledger.clear()
    assert not ledger.clear()


def test_marks_that_were_never_sent_prove_nothing():
    ledger, _ = ledger_with(12)
    for name in ("", "0", "0:", ":5", "x:5", "0:-5", "0:1700", "1:800", "0:" + "9" * 30, "0:²"):
        assert ledger.returned(name) is None
    assert (ledger.unknown, ledger.played) == (10, 0)


@given(st.lists(st.sampled_from(["add", "clear", "return", "old"]), max_size=200))
def test_it_never_claims_more_than_the_carrier_has_played(steps):
    """The carrier plays in order; "old" returns any mark that was ever sent."""
    ledger, sent, played, queue = MarkLedger(8000), [], 0, []
    for step in steps:
        match step:
            case "add":
                name = ledger.add(160)
                queue.append((ledger.given, name))
                sent += [name] if name else []
            case "clear":
                ledger.clear()
                queue.clear()
                played = ledger.given
            case "return" if queue:
                played, name = queue.pop(0)
                if name:
                    ledger.returned(name)
            case "old" if sent and sent[0] not in [name for _, name in queue]:
                ledger.returned(sent[0])
        assert ledger.played <= played
