"""Two servers behind nginx are replaced one after the other, and no call notices."""

import pytest

from benchmarks.rolling_restart import NGINX, restart

CALLS = 5


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed: apt-get install nginx-light")
async def test_a_rolling_restart_cuts_no_call(tmp_path):
    done = await restart(CALLS, tmp_path)
    assert (done.cut, done.codes) == (0, (0, 0))
