"""Detecting a machine that was too busy for its latencies."""

import asyncio
import time

import pytest

from duologue.cli.strain import LoadMonitor
from duologue.testing import virtual_time


def cores(worked, idle):
    """Return the first lines of /proc/stat, in ticks of 10 ms."""
    return f"cpu  {worked} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 2 3\n"


@pytest.mark.parametrize(
    ("worked", "own_s", "warns"),
    [(1000, 10.0, False), (1000, 9.0, False), (1000, 0.5, True), (100, 0.5, False)],
    ids=["all of it is ours", "nearly all", "others work too", "hardly anybody works"],
)
def test_use_by_other_programs_causes_a_warning(tmp_path, monkeypatch, worked, own_s, warns):
    stat = tmp_path / "stat"
    stat.write_text(cores(500, 5000))
    monkeypatch.setattr(time, "process_time", lambda: 3.0)
    strain = LoadMonitor(stat)
    strain.start()
    stat.write_text(cores(500 + worked, 5000 + 2000 - worked))
    monkeypatch.setattr(time, "process_time", lambda: 3.0 + own_s)
    warning = strain.warning()
    assert (warning is not None) == warns
    if warning:
        assert warning == (
            "This machine was too busy for these figures: other programs used 48% of it. "
            "A quiet one answers sooner."
        )


@pytest.mark.parametrize("text", ["", "cpu x\n", "intr 1 2 3\n", None])
def test_a_system_without_statistics_counts_as_quiet(tmp_path, text):
    stat = tmp_path / "stat"
    if text is not None:
        stat.write_text(text)
    strain = LoadMonitor(stat)
    strain.start()
    assert strain.warning() is None


@virtual_time
async def test_late_timers_cause_a_warning(tmp_path_factory):
    strain = LoadMonitor(tmp_path_factory.mktemp("none") / "stat")
    strain.start()
    watching = asyncio.create_task(strain.watch_timers())
    loop = asyncio.get_running_loop()
    for _ in range(19):
        await asyncio.sleep(0.1)
    assert strain.warning() is None
    for _ in range(2):  # the loop is blocked for 100 ms
        await asyncio.sleep(0.02)
        loop._virtual_now += 0.1
    await asyncio.sleep(0.1)
    watching.cancel()
    assert "of its timers were late" in (strain.warning() or "")
