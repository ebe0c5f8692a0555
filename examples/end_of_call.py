"""A server that says good morning, and writes down each call when it is over.

    python examples/end_of_call.py      # then open http://localhost:8000/?room=7

Each call becomes a line of calls.jsonl. For a database, write the line with it: on_end may be
async, and what it does holds up neither the caller nor the next one.
"""

import json
from pathlib import Path

from duologue import Agent, run
from duologue.edges.webrtc import CallEdge
from duologue.hosting import CallEnd, serve
from duologue.items import AgentItem, UserItem
from duologue.providers import local
from duologue.realtime.realtime import Realtime
from duologue.server import ServerConfig

CALLS = Path("calls.jsonl")


def model() -> Realtime:
    return local.Realtime("tiny")


async def make_agent(edge: CallEdge) -> Agent:
    """Called once for each caller; may look things up, because it is async."""
    room = edge.request.query.get("room", "unknown")
    return Agent(
        edge=edge,
        llm=model(),
        instructions=f"You are the receptionist of a small hotel. The guest is in room {room}.",
    )


def on_end(end: CallEnd) -> None:
    """Called in a thread of its own once the caller has gone."""
    items = end.agent.conversation.items if end.agent is not None else ()
    request = end.edge.request if isinstance(end.edge, CallEdge) else None
    line = {
        "room": request.query.get("room") if request is not None else None,
        "seconds": round(end.seconds, 1),
        "error": str(end.error) if end.error is not None else None,
        "words": [item.text for item in items if isinstance(item, UserItem | AgentItem)],
    }
    with CALLS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    run(serve(make_agent, ServerConfig(max_sessions=4), on_end=on_end))
