"""See what happens in calls: traces, metrics, recordings, stalls, and pages to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duologue._lazy import lazy_names

if TYPE_CHECKING:
    from duologue.observe.call import RecordedCall, read_call, read_calls
    from duologue.observe.explanations import Explanation, explain
    from duologue.observe.metrics import Metrics
    from duologue.observe.pages import view
    from duologue.observe.recorder import Recorder
    from duologue.observe.stalls import StallWatchdog
    from duologue.observe.tracing import trace

__all__ = [
    "Explanation",
    "Metrics",
    "RecordedCall",
    "Recorder",
    "StallWatchdog",
    "explain",
    "read_call",
    "read_calls",
    "trace",
    "view",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "duologue.observe.call": ["RecordedCall", "read_call", "read_calls"],
            "duologue.observe.explanations": ["Explanation", "explain"],
            "duologue.observe.metrics": ["Metrics"],
            "duologue.observe.recorder": ["Recorder"],
            "duologue.observe.stalls": ["StallWatchdog"],
            "duologue.observe.tracing": ["trace"],
            "duologue.observe.pages": ["view"],
        },
    )
