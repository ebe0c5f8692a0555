"""A tool: a plain function that the model may call while the conversation continues.

    python examples/tools.py

The model is a script here. With one that calls tools by itself, such as
`duologue.providers.local.Realtime("better")`, the agent stays the same.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from duologue import Agent, AudioFrame
from duologue.edges import wav
from duologue.events import ToolEndEvent, ToolStartEvent
from duologue.testing import Reply, ScriptedRealtime, ToolUse, run_virtual


@dataclass
class Room:
    number: int
    price: float


async def main() -> None:
    model = ScriptedRealtime(
        [
            Reply(tools=[ToolUse("free_rooms", {"kind": "double", "guests": 2})]),
            "We have room seven, for ninety euros.",
        ]
    )
    agent = Agent(edge=wav.Edge(AudioFrame.silence(0.1, 16000)), llm=model)

    @agent.tool(timeout=5)
    async def free_rooms(
        kind: Annotated[Literal["single", "double"], "Which sort of room."],
        guests: int = 1,
    ) -> list[Room]:
        """Rooms that are free tonight.

        Args:
            guests: How many people will stay.
        """
        return [Room(7, 90.0)] if kind == "double" and guests <= 2 else []

    @agent.events.subscribe
    def show(event: ToolStartEvent | ToolEndEvent) -> None:
        match event:
            case ToolStartEvent():
                print(f"{event.name} {event.arguments}")
            case ToolEndEvent():
                print(f"{event.name} {event.status}: {event.output}")

    async with agent.join():
        speech = await agent.simple_response("Is there a double room for two?")
        print(f"heard: {speech.heard_text}")


if __name__ == "__main__":
    run_virtual(main())
