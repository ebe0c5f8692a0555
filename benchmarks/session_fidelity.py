"""Properties of a session with a provider's protocol: silence, truth, and no losses.

``python -m benchmarks.session_fidelity openai|gemini|nova|qwen interrupts|heard|kills|rolling``.
The conversations are those of the conformance suite (``tests/conformance``), most in virtual time.
"""

from __future__ import annotations

import asyncio
import sys

from benchmarks.figures import give
from benchmarks.heard import heard
from benchmarks.interrupts import interrupts
from benchmarks.kill_soak import kills
from benchmarks.rollover import rolling
from duologue.testing import run_virtual


def main() -> None:
    name, kind = sys.argv[1:]
    match kind:
        case "interrupts":
            give(asyncio.run(interrupts(name, 24)))
        case "heard":
            give(run_virtual(heard(name, 60), grace=0.0))
        case "kills":
            give(run_virtual(kills(name, 100, 11), grace=0.0))
        case "rolling":
            give(run_virtual(rolling(name, 30, 1), grace=0.0))


if __name__ == "__main__":
    main()
