"""What each Nova Sonic model can do."""

from __future__ import annotations

from dataclasses import dataclass

from duologue.realtime.profile import Profile


@dataclass(frozen=True, slots=True)
class Generation:
    """What differs between the generations of the model, beside its `Profile`.

    ``text``: it answers to text that comes in mid-session (Nova 2 guide, "Cross-modal input").
    ``endpointing``: it can be told how soon a pause is the end of a turn. The history that a
    session begins with has at most ``messages`` messages of ``message_bytes`` each.
    """

    text: bool
    endpointing: bool
    messages: int
    message_bytes: int


NOVA_1 = Generation(text=False, endpointing=False, messages=40, message_bytes=1000)
NOVA_2 = Generation(text=True, endpointing=True, messages=40, message_bytes=40_000)


def generation_of(model: str) -> Generation:
    """Return the generation of a model id, or of an ARN that has one; unknown ids are the newest.

    ``amazon.nova-2-5-sonic`` belongs to the second: other clients use the same protocol for it.
    """
    return NOVA_1 if "nova-sonic-v1" in model else NOVA_2


def profile_of(model: str, input_rate: int = 16000, output_rate: int = 24000) -> Profile:
    """The profile of a model; a name that is not known here gets the newest one.

    What was cut can only be told in words, with the next text; by itself the model knows what its
    own interruption has cut.
    """
    generation = generation_of(model)
    return Profile(
        provider="aws",
        model=model,
        input_rate=input_rate,
        output_rate=output_rate,
        video=False,
        tools="reliable",
        tool_reply="automatic",
        say="instructed" if generation.text else "none",
        truncates=False,
        told_cuts=generation.text,
        cancels=False,
        holds_requests=True,
        speech_signals="found",
        user_transcripts="final",
        manual_turns=False,
        may_ignore=True,
        replays=True,
        mutable_instructions=False,
        mutable_tools=False,
    )
