"""What one model can do, as flags: asked before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Abilities and audio formats of one model (not of a provider).

    ``input_rate`` and ``output_rate`` are in Hz, mono int16. A missing ability is a typed error
    (`UnsupportedError`) or a documented emulation, never a log line.
    """

    provider: str
    model: str
    input_rate: int = 24000
    output_rate: int = 24000
    video: bool = False
    """Takes pictures."""
    tools: Literal["reliable", "experimental", "none"] = "reliable"
    """``experimental``: calls tools that nothing asked for; off unless asked for."""
    tool_reply: Literal["requested", "automatic"] = "requested"
    """Whether the model speaks by itself once it has the results of its calls."""
    say: Literal["exact", "instructed", "none"] = "exact"
    """How scripted text is spoken: by a synthesiser, by asking the model nicely, or not at all."""
    truncates: bool = True
    """Its history can be cut to what was heard."""
    told_cuts: bool = False
    """Where its history can't be cut, it is told in words what was not heard."""
    confirms_cancel: bool = True
    """Tells when a cancelled reply has ended; otherwise nothing waits for that."""
    defers_requests: bool = False
    """A request waits at the provider's codec until what is being said has been played."""
    speech_detection: Literal["told", "found", "none"] = "told"
    """Whether the model tells when the person starts and stops speaking, that is found here in
    their sound, or nobody does, because the program says when a turn is over."""
    user_transcripts: Literal["partial", "final", "none"] = "final"
    """``partial``: words come while the person is still speaking."""
    manual_turns: bool = False
    """Takes `EndTurn`."""
    turn_reply: Literal["requested", "automatic"] = "automatic"
    """Whether the model replies by itself to a turn that `EndTurn` has ended."""
    async_tools: bool = False
    """Goes on talking while a tool runs that is registered with a scheduling, and follows that."""
    tool_updates: bool = False
    """Takes several results of one call, of which the last one ends it."""
    may_ignore: bool = False
    """Whether the model may leave a user turn without a reply, and without a sign of it."""
    answers_pings: bool = False
    """Whether the model answers a `Ping`, which shows that it works though it sends nothing."""
    accepts_history: bool = True
    """A new session can be given the history of an older one."""
    mutable_instructions: bool = True
    mutable_tools: bool = True
