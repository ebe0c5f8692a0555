"""What each Nova Sonic model can do."""

from __future__ import annotations

from dataclasses import dataclass

from duologue.realtime.capabilities import Capabilities


@dataclass(frozen=True, slots=True)
class Generation:
    """What differs between the generations of the model, beside its `Capabilities`.

    ``text``: it answers to text that comes in mid-session (Nova 2 guide, "Cross-modal input").
    ``endpointing``: it can be told how soon a pause is the end of a turn. The history that a
    session begins with has at most ``messages`` messages of ``message_bytes`` each.
    """

    accepts_text: bool
    has_endpointing: bool
    max_messages: int
    max_message_bytes: int


NOVA_1 = Generation(
    accepts_text=False, has_endpointing=False, max_messages=40, max_message_bytes=1000
)
NOVA_2 = Generation(
    accepts_text=True, has_endpointing=True, max_messages=40, max_message_bytes=40_000
)


def generation_of(model: str) -> Generation:
    """Return the generation of a model id, or of an ARN that has one; unknown ids are the newest.

    ``amazon.nova-2-5-sonic`` belongs to the second: other clients use the same protocol for it.
    """
    return NOVA_1 if "nova-sonic-v1" in model else NOVA_2


def capabilities_of(model: str, input_rate: int = 16000, output_rate: int = 24000) -> Capabilities:
    """The profile of a model; a name that is not known here gets the newest one.

    What was cut can only be told in words, with the next text; by itself the model knows what its
    own interruption has cut.
    """
    generation = generation_of(model)
    return Capabilities(
        provider="aws",
        model=model,
        input_rate=input_rate,
        output_rate=output_rate,
        video=False,
        tools="reliable",
        tool_reply="automatic",
        say="instructed" if generation.accepts_text else "none",
        truncation="as_text" if generation.accepts_text else "none",
        confirms_cancel=False,
        defers_requests=True,
        speech_detection="local",
        user_transcripts="final",
        manual_turns=False,
        may_ignore=True,
        accepts_history=True,
        mutable_instructions=False,
        mutable_tools=False,
    )
