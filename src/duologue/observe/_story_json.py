"""What the pages show of a call, as JSON: of a recorded one, and of one that goes on (sans-IO)."""

from __future__ import annotations

import statistics

from duologue.json_types import Json, JsonObject
from duologue.observe._call_story import LATENCY_PARTS, AgentTurn, CallStory, PersonTurn, ToolUse
from duologue.observe.explanations import Explanation


def story_summary(story: CallStory) -> JsonObject:
    """Return how a call went, in numbers and without words."""
    latencies = story.latencies_ms
    return {
        "turns": len([turn for turn in story.person if not turn.empty]),
        "median_ms": round(statistics.median(latencies)) if latencies else None,
        "worst_ms": round(max(latencies)) if latencies else None,
        "interruptions": story.interruptions,
        "errors": len(story.problems) + (0 if story.ended_clean else 1),
        "reconnects": len(story.reconnects),
    }


def story_turns(story: CallStory, seconds: float) -> list[JsonObject]:
    """Return what was said, and the tools, in the order of time.

    Args:
        story: What happened.
        seconds: Length of the call so far, up to which goes what has not ended.
    """
    turns: list[JsonObject] = [
        *(_person(turn, seconds) for turn in story.person),
        *(_agent(turn, seconds) for turn in story.agent),
        *(_tool(tool, seconds) for tool in story.tools),
    ]
    return sorted(turns, key=_start_of)


def story_marks(story: CallStory) -> list[Json]:
    """Return what else lies on the time axis: holds, replaced connections and errors."""
    marks: list[Json] = [
        {"kind": "hold", "start": h.start, "end": h.end, "resumed": h.resumed} for h in story.holds
    ]
    marks += [
        {
            "kind": "reconnect",
            "start": reconnect.start,
            "end": reconnect.end,
            "text": f"{reconnect.reason} ({reconnect.outcome or 'not again'})",
        }
        for reconnect in story.reconnects
    ]
    for problem in story.problems:
        text = f"{problem.source}: {problem.message}"
        marks.append({"kind": "error", "start": problem.at, "end": problem.at, "text": text})
    return marks


def why_json(lines: list[Explanation]) -> list[Json]:
    """Return what was unusual, each with its time."""
    return [{"at": line.at, "text": line.text} for line in lines]


def _person(turn: PersonTurn, seconds: float) -> JsonObject:
    return {
        "id": f"person {turn.id}",
        "who": "person",
        "start": turn.start,
        "end": turn.end if turn.end is not None else seconds,
        "text": turn.text,
        "empty": turn.empty,
        "open": turn.end is None,
    }


def _agent(turn: AgentTurn, seconds: float) -> JsonObject:
    start = turn.start if turn.start is not None else turn.first_at
    end = turn.end if turn.end is not None else (seconds if turn.start is not None else start)
    return {
        "id": f"agent {turn.id}",
        "who": "agent",
        "start": start,
        "end": end,
        "heard": turn.heard_text,
        "unheard": turn.unheard,
        "silent": turn.start is None,
        "interrupted": turn.interrupted,
        "latency": {part: turn.latency_ms.get(part) for part in LATENCY_PARTS},
        "open": turn.end is None,
    }


def _tool(tool: ToolUse, seconds: float) -> JsonObject:
    return {
        "id": f"tool {tool.id}",
        "who": "tool",
        "start": tool.start,
        "end": tool.end if tool.end is not None else seconds,
        "name": tool.name,
        "arguments": tool.arguments,
        "output": tool.output,
        "status": tool.status,
        "open": tool.end is None,
    }


def _start_of(turn: JsonObject) -> float:
    start = turn.get("start")
    return float(start) if isinstance(start, int | float) else 0.0
