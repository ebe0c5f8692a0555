"""Describe what one model can do, so that a session asks before it sends anything.

Nothing is claimed by default. What a model does not claim is refused with `UnsupportedError` when a
program asks for it, and never dropped in silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Abilities and audio formats of one model (not of a provider).

    ``input_rate`` and ``output_rate`` are in Hz, mono int16. An ability that is missing is a typed
    error (`UnsupportedError`) or a documented emulation, never a log line.
    """

    provider: str
    model: str
    input_rate: int = 24000
    output_rate: int = 24000
    output: Literal["audio", "text"] = "audio"
    """What its replies are; a voice (`Realtime.use_voice`) makes audio of text."""
    video: bool = False
    """Accepts images."""
    tools: Literal["reliable", "experimental", "none"] = "none"
    """``experimental``: calls tools without a reason; off unless the program turns them on."""
    tool_reply: Literal["requested", "automatic"] = "requested"
    """Whether the model speaks by itself once it has the results of its calls."""
    say: Literal["exact", "instructed", "none"] = "none"
    """How scripted text is spoken: by a synthesiser, by instructions, or not at all."""
    truncation: Literal["native", "as_text", "none"] = "none"
    """How its history learns what was not heard: the item is truncated, the codec describes it in
    words, or not at all."""
    confirms_cancel: bool = False
    """Confirms the end of a cancelled reply; otherwise nothing waits for it."""
    defers_requests: bool = False
    """The provider's codec keeps a request until the current audio has been played."""
    speech_detection: Literal["server", "local", "none"] = "none"
    """Who detects when the person starts and stops speaking: the service, a VAD in this process, or
    nobody, because the program ends the turns."""
    user_transcripts: Literal["partial", "final", "none"] = "none"
    """``partial``: transcripts arrive while the person is still speaking."""
    manual_turns: bool = False
    """Accepts `EndTurn`."""
    turn_reply: Literal["requested", "automatic"] = "requested"
    """Whether the model replies by itself to a turn that `EndTurn` has ended."""
    async_tools: bool = False
    """Continues to talk while a tool runs that has a scheduling, and follows that."""
    tool_updates: bool = False
    """Accepts several results of one call, of which the last one ends it."""
    may_ignore: bool = False
    """Whether the model may leave a user turn without a reply, and without a sign of it."""
    answers_pings: bool = False
    """Whether the model answers a `Ping`, which shows that it works though it sends nothing."""
    accepts_history: bool = False
    """A new session can be given the history of an older one."""
    mutable_instructions: bool = False
    """Whether `UpdateSession` may change the instructions."""
    mutable_tools: bool = False
    """Whether `UpdateSession` may change the tools."""


Profile = Capabilities
"""Another name of `Capabilities`."""
