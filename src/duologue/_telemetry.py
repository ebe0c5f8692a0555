"""Switch off the telemetry of libraries before they start it.

onnxruntime sends usage data to Microsoft, and writes an id of the device into the user's cache, as
soon as it is imported. The hub of the weights counts its users. Both have a switch in the
environment, which they read only once, when they are imported.
"""

from __future__ import annotations

import os
import sys

SWITCHES = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY")
"""Variables of the environment; one that the user has set is not changed."""


def switch_off() -> None:
    """Set the switches; if onnxruntime is imported already, stop what it would send from now on."""
    for switch in SWITCHES:
        os.environ.setdefault(switch, "1")
    onnxruntime = sys.modules.get("onnxruntime")
    if onnxruntime is not None and os.environ[SWITCHES[0]] not in ("", "0"):
        stop = getattr(onnxruntime, "disable_telemetry_events", None)
        if stop is not None:
            stop()
