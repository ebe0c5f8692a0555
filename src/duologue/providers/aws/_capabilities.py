"""What each Nova Sonic model can do."""

from __future__ import annotations

from dataclasses import dataclass

from duologue.realtime.capabilities import Capabilities


@dataclass(frozen=True, slots=True)
class Generation:
    """What differs between the generations of the model, besides its `Capabilities`.

    ``accepts_text``: the model replies to text sent in mid-session (Nova 2 guide, "Cross-modal
    input"). ``has_endpointing``: the length of the pause that ends a turn can be set. The history
    at the start of a session has at most ``max_messages`` messages of ``max_message_bytes`` each.
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
    """Return the generation of a model id or ARN; an unknown id counts as the newest.

    ``amazon.nova-2-5-sonic`` belongs to the second generation: other clients use the same protocol
    for it.
    """
    return NOVA_1 if "nova-sonic-v1" in model else NOVA_2


def capabilities_of(model: str, input_rate: int = 16000, output_rate: int = 24000) -> Capabilities:
    """Return the capabilities of a model; an unknown id gets those of the newest.

    A truncation can only be reported as text, together with the next request. The model knows by
    itself what its own interruption cut off.
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
        turn_reply="automatic",
        may_ignore=True,
        accepts_history=True,
        mutable_instructions=False,
        mutable_tools=False,
    )
