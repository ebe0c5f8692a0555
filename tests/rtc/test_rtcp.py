"""Receiver statistics compared with the definitions of RFC 3550."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from duologue.rtc._rtcp import ReceptionStatistics


@given(st.integers(0, 0xFFFF), st.lists(st.booleans(), min_size=2, max_size=400))
def test_loss_and_highest_sequence_number_survive_the_wrap(first: int, kept: list[bool]) -> None:
    kept[0] = True
    stats = ReceptionStatistics()
    for i, keep in enumerate(kept):
        if keep:
            stats.add((first + i) & 0xFFFF, i * 960 & 0xFFFFFFFF, i * 0.02)
    last = max(i for i, keep in enumerate(kept) if keep)
    assert stats.max_seq == first + last
    assert stats.packets_lost == last + 1 - sum(kept)
    assert stats.fraction_lost == 256 * (last + 1 - sum(kept)) // (last + 1)
    assert stats.fraction_lost == 0


def test_an_even_stream_has_no_jitter_even_when_timestamps_wrap() -> None:
    stats = ReceptionStatistics()
    for i in range(200):
        stats.add(i, (0xFFFFF000 + i * 960) & 0xFFFFFFFF, 1000 + i * 0.02)
    assert stats.jitter <= 1
    for i in range(200, 400):
        stats.add(i, (0xFFFFF000 + i * 960) & 0xFFFFFFFF, 1000 + i * 0.02 + i % 2 * 0.01)
    assert abs(stats.jitter - 480) < 50


def test_duplicates_make_loss_negative_and_reordering_is_no_loss() -> None:
    stats = ReceptionStatistics()
    for i in (0, 1, 3, 2, 4, 4):
        stats.add(i, i * 960, i * 0.02)
    assert stats.packets_lost == -1
    assert stats.fraction_lost == 0
    assert stats.max_seq == 4
