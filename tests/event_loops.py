"""The event loops that programs and commands can run in."""

import importlib.util

import pytest

EVENT_LOOPS = [
    "asyncio",
    pytest.param(
        "uvloop",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("uvloop") is None, reason="needs duologue[server]"
        ),
    ),
]
