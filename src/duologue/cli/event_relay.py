"""Follow a conversation whose agent a program of the user makes and joins itself.

The command never sees such an agent, but an agent sends its events to its edge as JSON. So the
command gives the program an edge that passes them on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import cast, get_args

from duologue.events import events
from duologue.events.events import Event
from duologue.json_types import Json

_CLASSES: Mapping[str, type[Event]] = {
    kind.__name__: kind for kind in get_args(events.Event.__value__)
}


def event_from_json(data: Mapping[str, Json]) -> Event | None:
    """Return the event that `event_to_json` made into ``data``; None for an unknown type.

    Fields that are dataclasses or mappings stay JSON values. What was left out of ``data`` gets its
    default.
    """
    kind = _CLASSES.get(str(data.get("type")))
    if kind is None:
        return None
    values = {field.name: data[field.name] for field in fields(kind) if field.name in data}
    return cast("Callable[..., Event]", kind)(**values)


class EventRelay:
    """The part of an edge that passes on the events of its agent."""

    on_event: Callable[[Event], None] | None = None
    """Called with each event."""

    def send_event(self, data: Mapping[str, Json]) -> None:
        """Pass on an event."""
        event = event_from_json(data)
        if event is not None and self.on_event is not None:
            self.on_event(event)


def relayed[E](kind: type[E]) -> type[E]:
    """Return a class of edges that are `EventRelay` too."""
    return cast("type[E]", type(kind.__name__, (EventRelay, kind), {}))
