"""Say in sentences what was unusual in a recorded call, and why.

Everything comes from the recording's events: why the agent did not reply, replied late, was cut,
or cut itself; what held it up; which connections were replaced. What is not recorded is not
guessed: a sentence names the largest part of a delay, not its cause inside a service.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from duologue.observe._call_story import AgentTurn, CallStory, Hold, PersonTurn, Problem
from duologue.observe.call import RecordedCall

LATE_MS = 1500.0
"""A reply whose first audio comes later than this after the person's speech is late."""

_SLACK_S = 0.25
"""Seconds by which events of one moment may lie apart."""

_CLOSE_S = 1.25
"""Seconds that closing a session may take after its last speech was cut."""

_PATIENCE_S = 5.0
"""Seconds for which the reply to the newest turn of a running call is not yet missed."""

_SAME_TURN_S = 1.5
"""Seconds after which speech is no longer taken for the rest of the turn before."""

_ECHO_WORDS = 0.7
"""Share of the person's words that are the agent's own in an echo."""

_MIN_ECHO_WORDS = 3


@dataclass(frozen=True, slots=True)
class Explanation:
    """One thing that happened: ``at`` seconds of the audio, in one sentence."""

    at: float
    kind: str
    """``no-reply``, ``late``, ``cut``, ``echo``, ``noise``, ``held``, ``reconnect``, ``refused``,
    ``error``, ``end``."""
    text: str


def explain(call: RecordedCall) -> list[Explanation]:
    """Return what was unusual in a call, in the order of time; nothing if all went well."""
    return explain_story(call.story, call.seconds, is_whole="seconds" in call.facts)


def explain_story(
    story: CallStory, seconds: float, *, is_whole: bool = True, goes_on: bool = False
) -> list[Explanation]:
    """Return what was unusual in a call of that many seconds.

    Args:
        story: What happened.
        seconds: Length of the call.
        is_whole: Whether the recording has its end.
        goes_on: Whether the call has not ended, so that a reply may still come.
    """
    found = [
        *_silences(story, seconds, goes_on=goes_on),
        *_late(story),
        *_cuts(story),
        *_holds(story),
        *_reconnects(story),
        *(Explanation(p.at, *_of_problem(p)) for p in story.problems),
        *_end(story, seconds, is_whole=is_whole),
    ]
    return sorted(found, key=lambda line: line.at)


def _of_problem(problem: Problem) -> tuple[str, str]:
    """Return the kind and the sentence of an error."""
    message = problem.message.rstrip(".")
    if problem.source == "edge" and problem.code == "ended":
        return "end", f"The connection to the person failed, which ended the call: {message}."
    if problem.source == "request":
        code = f" ({problem.code})" if problem.code else ""
        return "refused", f"The model refused a request for a reply{code}: {message}."
    return "error", f"{problem.source} failed, and the call went on: {problem.message}"


def _silences(story: CallStory, seconds: float, *, goes_on: bool) -> Iterator[Explanation]:
    """Say why turns of the person got no reply."""
    for index, turn in enumerate(story.person):
        if turn.end is None or turn.ended_at is None:
            continue
        if turn.empty:
            yield Explanation(
                turn.start,
                "noise",
                f"A sound of {turn.end - turn.start:.1f} s was no speech, so it got no reply.",
            )
            continue
        following = story.person[index + 1] if index + 1 < len(story.person) else None
        until = following.start if following is not None else seconds
        if goes_on and following is None and until - turn.ended_at < _PATIENCE_S:
            continue
        replies = [
            reply
            for reply in story.agent
            if turn.ended_at - _SLACK_S <= (reply.start or reply.first_at) <= until + _SLACK_S
        ]
        if any(reply.start is not None for reply in replies):
            continue
        yield Explanation(
            turn.end, "no-reply", _why_no_reply(story, turn, following, until, replies)
        )


def _why_no_reply(
    story: CallStory,
    turn: PersonTurn,
    following: PersonTurn | None,
    until: float,
    replies: list[AgentTurn],
) -> str:
    said = f"{_quote(turn.text)} got no reply" if turn.text else "A turn got no reply"
    end = turn.ended_at if turn.ended_at is not None else turn.start
    for problem in story.problems:
        if end - _SLACK_S <= problem.at <= until:
            if problem.source == "request":
                return f"{said}: the model refused to make one ({problem.message})."
            return f"{said}: {problem.source} failed ({problem.message})."
    for reconnect in story.reconnects:
        if reconnect.start <= until and (reconnect.end is None or reconnect.end >= end - _SLACK_S):
            state = "was not replaced" if reconnect.end is None else "was being replaced"
            return f"{said}: the connection {state} ({reconnect.reason})."
    tool = next(
        (t for t in story.tools if t.start >= end - _SLACK_S and (t.end is None or t.end > until)),
        None,
    )
    if tool is not None:
        return f"{said}: the tool {tool.name} was still running."
    if replies:
        return f"{said}: one was made, but the person spoke again before it began to play."
    wait = until - end
    if following is None and story.ended_at is not None:
        wait = max(0.0, story.ended_at - end)
        if wait < LATE_MS / 1000:
            return f"{said}: the session ended {wait:.1f} s after it ({story.end_reason})."
    if following is not None and wait < LATE_MS / 1000:
        decided = f"; {_decision(turn)} had ended the turn" if turn.ended_by else ""
        return f"{said}: the person went on speaking after {max(0.0, wait):.1f} s{decided}."
    if not turn.text:
        return f"{said}: it has no transcript, so the model may have heard no words."
    return f"{said}: the model sent none in {wait:.1f} s, and no error."


def _late(story: CallStory) -> Iterator[Explanation]:
    """Say what took longest where a reply was late."""
    for reply in story.agent:
        total = reply.latency_ms.get("first_played")
        if total is None or total <= LATE_MS or reply.start is None:
            continue
        speech_end = reply.start - total / 1000
        yield Explanation(
            reply.start,
            "late",
            f"A reply came {total / 1000:.1f} s after the person: "
            f"{_longest_part(story, reply, speech_end)}.",
        )


def _longest_part(story: CallStory, reply: AgentTurn, speech_end: float) -> str:
    began = reply.start if reply.start is not None else speech_end
    for reconnect in story.reconnects:
        end = reconnect.end if reconnect.end is not None else began
        if reconnect.start < began and end > speech_end:
            return f"the connection was replaced meanwhile ({reconnect.reason})"
    tools = [t for t in story.tools if speech_end <= t.start < began and t.end is not None]
    longest = max(tools, key=lambda t: (t.end or t.start) - t.start, default=None)
    if longest is not None and longest.end is not None:
        took = longest.end - longest.start
        if took > (began - speech_end) / 3:
            return f"it waited {took:.1f} s for the tool {longest.name}"
    times = reply.latency_ms
    steps: dict[str, float] = {}
    before = 0.0
    for part, text in _PARTS.items():
        value = times.get(part)
        if value is not None:
            steps[text] = value - before
            before = max(before, value)
    text, took_ms = max(steps.items(), key=lambda step: step[1])
    turn = next((t for t in reversed(story.person) if t.ended_at and t.ended_at <= began), None)
    decided = ""
    if text is _PARTS["endpoint"] and turn is not None and turn.ended_by:
        decided = f"; {_decision(turn)} ended the turn"
    return text.format(f"{took_ms / 1000:.1f} s") + decided


def _decision(turn: PersonTurn) -> str:
    """Return what ended a turn, as the subject of a sentence."""
    *earlier, last = turn.votes or (0.0,)
    before = f" after {_list(earlier)}" if earlier else ""
    match turn.ended_by:
        case "vote":
            return f"the turn detector's vote of {last:.2f}{before}"
        case "program":
            return "the program"
        case _ if turn.votes:
            return f"silence, because the turn detector voted {_list(turn.votes)},"
        case _:
            return "silence"


def _list(votes: Sequence[float]) -> str:
    shown = [f"{vote:.2f}" for vote in votes[-4:]]
    return ("..., " if len(votes) > 4 else "") + ", ".join(shown)


_PARTS = {
    "endpoint": "deciding that the person had finished took {}",
    "transcript": "the transcript took {}",
    "first_text": "the model took {} to its first word",
    "first_audio": "making the first audio took {}",
    "first_played": "the audio waited {} before it was played",
}
"""Steps of a reply in their order, and what is said of the longest."""


def _cuts(story: CallStory) -> Iterator[Explanation]:
    """Say what interrupted the agent."""
    for reply in story.agent:
        if not reply.interrupted or reply.start is None or reply.end is None:
            continue
        if not reply.has_interruption and _ended_with(story, reply.end):
            yield Explanation(reply.end, "end", "The agent was still speaking when the call ended.")
            continue
        after = f"The agent was cut after {reply.end - reply.start:.1f} s"
        cause = None if reply.cause == "program" else _interrupter(story, reply)
        if cause is None and reply.cause == "model":
            yield Explanation(
                reply.end, "cut", f"{after}: the model stopped, because it heard a sound."
            )
        elif cause is None:
            yield Explanation(
                reply.end,
                "cut",
                f"{after} by the program: an interrupt(), or a text that was to be said at once.",
            )
        elif cause.text and _is_echo(cause.text, reply.generated):
            yield Explanation(
                reply.end,
                "echo",
                f"{after} by its own voice: what was heard, {_quote(cause.text)}, are its words. "
                "Use a headset or echo cancellation.",
            )
        elif cause.text:
            early = _ended_too_early(story, cause)
            said = f"{after}: the person said {_quote(cause.text)}{early}."
            yield Explanation(reply.end, "cut", said)
        else:
            yield Explanation(
                reply.end, "cut", f"{after} by a sound of the person that has no transcript."
            )


def _ended_too_early(story: CallStory, turn: PersonTurn) -> str:
    """Return what ended the turn before, if the person went on as if it had not ended."""
    index = story.person.index(turn)
    before = story.person[index - 1] if index else None
    if before is None or before.end is None or not before.ended_by:
        return ""
    if before.empty or turn.start - before.end > _SAME_TURN_S:
        return ""
    return f", as if they had not finished; {_decision(before)} had ended the turn before"


def _ended_with(story: CallStory, end: float) -> bool:
    """Return whether the session ended as a speech did."""
    return story.ended_at is not None and abs(story.ended_at - end) <= _CLOSE_S


def _interrupter(story: CallStory, reply: AgentTurn) -> PersonTurn | None:
    if reply.start is None or reply.end is None:
        return None
    for turn in reversed(story.person):
        if turn.start > reply.end + _SLACK_S:
            continue
        still = turn.end is None or turn.end >= reply.end - 3.0
        return turn if turn.start >= reply.start - _SLACK_S and still else None
    return None


def _is_echo(text: str, spoken: str) -> bool:
    words, own = _words(text), set(_words(spoken))
    return len(words) >= _MIN_ECHO_WORDS and sum(
        word in own for word in words
    ) >= _ECHO_WORDS * len(words)


def _holds(story: CallStory) -> Iterator[Explanation]:
    for hold in story.holds:
        if hold.resumed and hold.end is not None:
            yield Explanation(
                hold.start,
                "held",
                f"The agent stopped for {hold.end - hold.start:.1f} s because {_held_by(hold)}, "
                f"and went on: {_resumed_by(hold)}.",
            )


def _held_by(hold: Hold) -> str:
    return {
        "voice": "a voice was heard",
        "signal": "the model said that the person speaks",
        "model": "the model had stopped its reply at a sound",
    }.get(hold.reason, "of a sound")


def _resumed_by(hold: Hold) -> str:
    return {
        "empty": "there was no speech in it",
        "time": "no word and no more of the voice followed",
    }.get(hold.end_reason, "the person said nothing that interrupts")


def _reconnects(story: CallStory) -> Iterator[Explanation]:
    for reconnect in story.reconnects:
        if reconnect.end is None:
            text = f"The connection was lost ({reconnect.reason}) and not replaced."
        else:
            lost = f"{reconnect.lost_ms:.0f} ms of audio were lost"
            knows = _OUTCOMES.get(reconnect.outcome, reconnect.outcome)
            text = (
                f"The connection was replaced in {reconnect.end - reconnect.start:.1f} s "
                f"({reconnect.reason}): {knows}, {lost}."
            )
        yield Explanation(reconnect.start, "reconnect", text)


_OUTCOMES = {
    "restored": "the service resumed the session",
    "replayed": "the model was told the history again",
    "fresh": "the model knows nothing of what was before",
}


def _end(story: CallStory, seconds: float, *, is_whole: bool) -> Iterator[Explanation]:
    if not story.ended_clean:
        yield Explanation(
            story.ended_at or seconds, "end", f"The session ended by an error: {story.end_reason}."
        )
    elif not is_whole:
        yield Explanation(seconds, "end", "The recording has no end: its program was killed.")


def _words(text: str) -> list[str]:
    # A character is a word where words are not separated.
    return re.findall(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\d_]+|\d+", text.lower())


def _quote(text: str | None) -> str:
    words = " ".join((text or "").split())
    return f'"{words if len(words) <= 60 else words[:57] + "..."}"'
