"""Fixtures and settings of all tests."""

from __future__ import annotations

import signal
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from duologue.weights import Store, WeightsError

# How long an example takes says how busy the machine is, not whether it is right.
settings.register_profile("any pace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any pace")

# A shell starts what it puts into the background with these ignored, and programs that tests start
# would inherit that.
for _signal, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, _handler)


@pytest.fixture(scope="session")
def weights() -> Store:
    """A store that has the weights of the profile tiny."""
    pytest.importorskip("xllamacpp", reason="needs duologue[local]")
    from duologue.providers.local import engine

    store = Store()
    try:
        for name in engine.profile_weights("tiny"):
            store.ensure(name, progress=False)
    except WeightsError as error:
        pytest.skip(f"the weights can't be had here: {error}")
    return store


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Replace half surrogates in captured output: pytest-xdist can't carry them to its parent."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report
