"""Other people's telemetry: switched off before a library can begin with it.

onnxruntime sends usage data to Microsoft and writes an id of the device into the user's cache, from
its import on. The hub of the weights counts its users. Both have a switch in the environment, which
counts only when it is set before they are imported.
"""

from __future__ import annotations

import os
import sys

SWITCHES = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY")
"""Variables of the environment; one that the user has set stays as it is."""


def switch_off() -> None:
    """Set the switches; where onnxruntime is there already, stop what it would send from now on."""
    for switch in SWITCHES:
        os.environ.setdefault(switch, "1")
    onnxruntime = sys.modules.get("onnxruntime")
    if onnxruntime is not None and os.environ[SWITCHES[0]] not in ("", "0"):
        stop = getattr(onnxruntime, "disable_telemetry_events", None)
        if stop is not None:
            stop()
