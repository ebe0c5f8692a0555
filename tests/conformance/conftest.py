import functools

import pytest
from subjects import SUBJECTS

from duologue.testing import run_virtual


def conformance(function):
    """Run a test once for every Realtime, each in virtual time."""

    @pytest.mark.parametrize("subject", SUBJECTS)
    @functools.wraps(function)
    def run(subject, **more):
        run_virtual(function(subject, **more), grace=0.0)

    return run
