"""How well it is known how much of the agent's audio the person has heard."""

from __future__ import annotations

from typing import Literal

type Quality = Literal["confirmed", "device", "estimated", "read"]
"""How well it is known what was heard: by the client's reports, the audio device, or the clock.
``read``: it was not spoken, but shown as text."""
