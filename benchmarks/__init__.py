"""The benchmarks; they share the fakes and the simulated services of the tests."""

import sys
from pathlib import Path

# Where pytest finds them too: `pythonpath` in pyproject.toml.
sys.path[:0] = [str(Path(__file__).parent.parent / "tests" / part) for part in ("", "conformance")]
