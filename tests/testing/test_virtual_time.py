import asyncio
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.testing.virtual_time import (
    DeadlockError,
    VirtualTimeLoop,
    run_virtual,
    virtual_time,
)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_an_hour_of_sleep_takes_no_time():
    async def main():
        await asyncio.sleep(3600)
        return now()

    began = time.perf_counter()
    assert run_virtual(main()) == 3600
    assert run_virtual(main(), start=5.0) == 3605
    assert time.perf_counter() - began < 1


@given(st.lists(st.floats(0, 1e4, allow_nan=False), max_size=30))
@settings(max_examples=50, deadline=None)
@virtual_time
async def test_timers_fire_in_order_and_exactly_when_they_are_due(delays):
    fired = []
    loop = asyncio.get_running_loop()
    for delay in delays:
        loop.call_at(delay, lambda due=delay: fired.append((due, loop.time())))
    await asyncio.sleep(2e4)
    assert [due for due, _ in fired] == sorted(delays)
    for due, at in fired:
        assert due == pytest.approx(at, abs=1e-8)


@virtual_time
async def test_waiting_until_a_time_always_gets_there():
    for step in range(1, 2000):
        target = step * 0.02
        while now() < target:
            await asyncio.sleep(target - now())
        assert now() == pytest.approx(target)


@virtual_time
async def test_no_timer_is_called_slightly_too_early():
    loop = asyncio.get_running_loop()
    called = []

    def look():
        called.append(now())
        if now() < 5.0 and len(called) < 100:
            loop.call_at(5.0, look)

    loop.call_at(5.0 - 2e-14, lambda: None)
    loop.call_at(5.0, look)
    await asyncio.sleep(6)
    assert called == [5.0]


@virtual_time
async def test_cancelled_timers_do_not_stop_time():
    loop = asyncio.get_running_loop()
    loop.call_later(100, pytest.fail, "it was cancelled").cancel()
    await asyncio.sleep(1)
    assert now() == 1
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.25):
            await asyncio.Event().wait()
    assert now() == 1.25


def test_the_same_program_runs_the_same_way_twice():
    async def main():
        seen = []

        async def worker(n):
            for i in range(20):
                await asyncio.sleep(0.01 * ((n * 7 + i * 3) % 5))
                seen.append((n, i, now()))

        await asyncio.gather(*(worker(n) for n in range(6)))
        return seen

    assert run_virtual(main()) == run_virtual(main())


@pytest.mark.parametrize("how", ["to_thread", "run_in_executor"])
def test_time_stops_while_threads_work(how):
    async def main():
        loop = asyncio.get_running_loop()
        ticks = []
        timer = asyncio.create_task(tick(ticks))
        await asyncio.sleep(0.05)
        if how == "to_thread":
            await asyncio.to_thread(time.sleep, 0.15)
        else:
            await loop.run_in_executor(None, time.sleep, 0.15)
        at = now()
        timer.cancel()
        return at, ticks

    async def tick(ticks):
        while True:
            ticks.append(now())
            await asyncio.sleep(0.02)

    began = time.perf_counter()
    at, ticks = run_virtual(main())
    assert time.perf_counter() - began >= 0.15
    assert at == pytest.approx(0.05)
    assert ticks == pytest.approx([0.0, 0.02, 0.04])


def test_work_whose_waiter_was_cancelled_still_stops_time():
    async def main():
        done = threading.Event()

        def work():
            time.sleep(0.1)
            done.set()

        task = asyncio.create_task(asyncio.to_thread(work))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(10)
        return done.is_set()

    assert run_virtual(main())


def test_foreign_threads_wake_the_loop():
    async def main():
        loop = asyncio.get_running_loop()
        woken = loop.create_future()
        thread = threading.Timer(0.1, lambda: loop.call_soon_threadsafe(woken.set_result, 7))
        thread.start()
        return await woken, now()

    assert run_virtual(main()) == (7, 0.0)


def test_hold_stops_time_for_foreign_threads():
    async def main():
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        woken = loop.create_future()
        threading.Timer(0.1, lambda: loop.call_soon_threadsafe(woken.set_result, 7)).start()
        with loop.hold():
            async with asyncio.timeout(0.05):
                return await woken, now()

    assert run_virtual(main()) == (7, 0.0)


@virtual_time
async def test_sockets_carry_data_before_time_jumps():
    async def echo(reader, writer):
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for i in range(50):
        async with asyncio.timeout(0.02):
            writer.write(b"%d\n" % i)
            assert await reader.readline() == b"%d\n" % i
    writer.close()
    server.close()
    assert now() < 0.02


def test_a_deadlock_is_an_error_that_says_where():
    async def stuck_for_good():
        await asyncio.Event().wait()

    async def main():
        await asyncio.sleep(1.5)
        await stuck_for_good()

    with pytest.raises(DeadlockError, match=r"at 1\.500 s.*stuck_for_good"):
        run_virtual(main())


def test_errors_and_remaining_tasks_end_as_in_asyncio_run():
    ended = []

    async def forever():
        try:
            await asyncio.sleep(1e9)
        finally:
            ended.append(now())

    async def main():
        task = asyncio.create_task(forever())
        await asyncio.sleep(2)
        assert not task.done()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run_virtual(main())
    assert ended == [2.0]


class TestDecorator:
    @pytest.fixture
    def number(self):
        return 3

    @pytest.mark.parametrize("factor", [2])
    @virtual_time
    async def test_the_decorator_accepts_fixtures_and_parameters(self, number, factor):
        await asyncio.sleep(number * factor)
        assert now() == 6
