"""See what happens in calls: traces for OpenTelemetry, metrics for Prometheus, recordings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duologue._lazy import lazy_names

if TYPE_CHECKING:
    from duologue.observe.metrics import Metrics
    from duologue.observe.recorder import Recorder
    from duologue.observe.trace import trace

__all__ = ["Metrics", "Recorder", "trace"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "duologue.observe.metrics": ["Metrics"],
            "duologue.observe.recorder": ["Recorder"],
            "duologue.observe.trace": ["trace"],
        },
    )
