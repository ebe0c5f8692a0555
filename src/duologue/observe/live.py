"""Follow a running call for the page of running calls.

What is kept is bounded: the newest `MAX_ENTRIES` turns, tools and marks of each kind, and
`MAX_CHARS` of each text; older ones are forgotten. Nothing is kept of the audio, and nothing at all
after the call. An event costs about 20 us, and only a page that asks costs more.

A page asks with the version that it has (`LiveCall.changes`), and gets what has changed since. So
it needs no connection of its own to the process that has the call: with several workers its
questions and the answers travel like those of the REST API.
"""

from __future__ import annotations

import json
import time

from duologue.agent.agent import Agent
from duologue.events.events import Event, RealtimeConnectedEvent
from duologue.events.json import event_without_setup
from duologue.json_types import Json, JsonObject
from duologue.observe._call_story import StoryReader
from duologue.observe._story_json import story_marks, story_summary, story_turns, why_json
from duologue.observe.explanations import explain_story

MAX_ENTRIES = 300
"""Most turns of each side, tools, holds, replaced connections and errors that are kept."""

MAX_CHARS = 4000
"""Most characters of each text that are kept."""

MAX_ANSWER_BYTES = 1024 * 1024
"""Bytes of turns from which on one answer has no more; the next question gets the others."""

_IDS = (("person", "turn_id"), ("agent", "speech_id"), ("tool", "call_id"))


class LiveCall:
    """What happens in the conversation of an agent; make it before the agent joins.

    Args:
        agent: The agent.
    """

    def __init__(self, agent: Agent) -> None:
        self._name = agent.agent_user.name
        self._model = agent.llm.capabilities.model
        self._reader = StoryReader(MAX_ENTRIES, MAX_CHARS)
        self._zero: float | None = None
        self._version = 0
        self._changed: dict[str, int] = {}
        """The version at which each turn has changed, by its id in `story_turns`."""
        agent.events.tap(self._record)

    def summary(self) -> JsonObject:
        """Return the row of the call in the list, without words."""
        return {"agent": self._name, "model": self._model, **story_summary(self._reader.story)}

    def changes(self, after: int) -> JsonObject:
        """Return what has changed, with its words.

        Args:
            after: The version of the answer before; 0 for the first.

        Returns:
            ``version`` to ask with next, and ``seconds``. Unless nothing has changed, also ``call``
            with numbers, marks and explanations, and ``turns`` with those that have changed.
        """
        seconds = self._seconds()
        same: JsonObject = {"version": self._version, "seconds": round(seconds, 2)}
        if after == self._version:
            return same
        if after > self._version:
            after = 0  # It is from an earlier call, or made up.
        story = self._reader.story
        fresh = [
            (version, turn)
            for turn in story_turns(story, seconds)
            if (version := self._changed.get(str(turn["id"]), 0)) > after
        ]
        fresh.sort(key=lambda entry: entry[0])
        turns: list[Json] = []
        until, size = self._version, 0
        for version, turn in fresh:
            size += len(json.dumps(turn))
            if turns and size > MAX_ANSWER_BYTES:
                until = version - 1
                break
            turns.append(turn)
        numbers = {name: value for name, value in self.summary().items() if name != "turns"}
        return {
            **same,
            "version": until,
            "call": {
                **numbers,
                "marks": story_marks(story),
                "why": why_json(explain_story(story, seconds, goes_on=True)),
            },
            "turns": turns,
        }

    def _ids(self) -> set[str]:
        story = self._reader.story
        return {
            *(f"person {turn.id}" for turn in story.person),
            *(f"agent {turn.id}" for turn in story.agent),
            *(f"tool {tool.id}" for tool in story.tools),
        }

    def _seconds(self) -> float:
        return 0.0 if self._zero is None else max(0.0, time.time() - self._zero)

    def _record(self, event: Event) -> None:
        if self._zero is None:
            self._zero = event.at
        if isinstance(event, RealtimeConnectedEvent):
            self._model = str(event.capabilities.get("model", self._model))
        value: JsonObject = {"t": event.at - self._zero}
        for name, item in event_without_setup(event).items():
            value[name] = item[:MAX_CHARS] if isinstance(item, str) else item
        self._reader.read(value)
        self._version += 1
        for who, name in _IDS:
            turn_id = value.get(name)
            if isinstance(turn_id, str) and turn_id:
                self._changed[f"{who} {turn_id}"] = self._version
        if len(self._changed) > 4 * MAX_ENTRIES:
            kept = self._ids()
            self._changed = {key: at for key, at in self._changed.items() if key in kept}
