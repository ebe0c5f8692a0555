import asyncio
import logging

import pytest

from duologue._user_code import GRACE_S, run_bounded
from duologue.testing import virtual_time


@virtual_time
async def test_run_bounded_returns_the_result():
    async def work():
        await asyncio.sleep(1)
        return 5

    assert await run_bounded(work(), "work") == 5


@virtual_time
async def test_run_bounded_raises_what_the_code_raises():
    async def work():
        raise KeyError("x")

    with pytest.raises(KeyError):
        await run_bounded(work(), "work")


async def cancel(code, seconds=0.1):
    task = asyncio.create_task(run_bounded(code, "the tool"))
    await asyncio.sleep(seconds)
    began = asyncio.get_running_loop().time()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return asyncio.get_running_loop().time() - began


@virtual_time
async def test_cancelled_code_may_clean_up():
    tidied = []

    async def work():
        try:
            await asyncio.sleep(9)
        finally:
            await asyncio.sleep(0.2)
            tidied.append(True)

    assert await cancel(work()) == pytest.approx(0.2)
    assert tidied
    assert len(asyncio.all_tasks()) == 1


@virtual_time
async def test_code_that_does_not_end_is_abandoned():
    async def work():
        while True:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                continue
            return

    logger, messages = logging.getLogger("duologue._user_code"), []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger.addHandler(handler)
    try:
        assert await cancel(work()) == pytest.approx(GRACE_S)
    finally:
        logger.removeHandler(handler)
    assert messages == ["the tool ignores its cancellation and was left running"]
    await asyncio.sleep(3)
