"""A redis-server on a Unix socket, for the tests that need one."""

import shutil
import subprocess

import pytest


class RedisProcess:
    """A redis-server with a log on disk; `stop` and `start` make it fail and return."""

    def __init__(self, folder):
        self._folder = folder
        self._socket = folder / "redis.sock"
        self.url = f"unix://{self._socket}?db=0"
        self._process = None
        self.start()

    def start(self):
        command = ["redis-server", "--port", "0", "--unixsocket", self._socket]
        command += ["--save", "", "--appendonly", "yes", "--dir", self._folder]
        self._process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
        for line in self._process.stdout:
            if "Ready to accept" in line or "ready to accept" in line:
                return
        raise AssertionError("redis-server did not start")

    def stop(self):
        self._process.terminate()
        self._process.communicate(timeout=10)


@pytest.fixture(scope="module")
def redis_process(tmp_path_factory):
    """Start a redis-server for the tests of a module."""
    pytest.importorskip("redis", reason="the extra redis is not installed")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    process = RedisProcess(tmp_path_factory.mktemp("redis"))
    yield process
    process.stop()
