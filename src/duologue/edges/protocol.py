"""The interface between an agent and the place where the person is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from duologue.audio import AudioFrame
from duologue.json_types import Json
from duologue.quality import Quality
from duologue.video import VideoFrame


class AgentInput(Protocol):
    """The agent, as an edge sees it: everything of the person goes in here, on the event loop."""

    def push_audio(self, frame: AudioFrame) -> None:
        """The next sound of the person, at any rate and of any length; never blocks."""

    @property
    def wants_video(self) -> bool:
        """Whether video is used; if not, an edge should not capture any."""
        ...

    def push_video(self, make_frame: Callable[[], VideoFrame]) -> None:
        """A picture is there; ``frame`` is called only if the picture is wanted."""

    def push_text(self, text: str) -> None:
        """The person wrote something; it is answered like speech."""

    def report_played(self, samples: int) -> None:
        """So many samples of all that `Edge.play` was given, silence included, were played.

        Counted at the edge's ``output_rate`` since it opened, each None as one frame of silence.
        """

    async def wait_until_listening(self) -> None:
        """Wait till the model hears. What comes before is kept for it, up to ten seconds."""

    @property
    def is_idle(self) -> bool:
        """Nothing is being said, made, played or awaited on either side."""
        ...


class Edge(Protocol):
    """One place where one person is.

    ``play`` is called by the output clock every 20 ms. What an edge has been given and has not
    played yet it must drop on ``clear`` at once.
    """

    @property
    def output_rate(self) -> int:
        """Hz of the frames that `play` takes: 16000, 24000 or 48000 for example."""
        ...

    @property
    def quality(self) -> Quality:
        """``estimated`` when the edge never calls `Person.played`."""
        ...

    @property
    def lead_ms(self) -> int:
        """How far ahead of real time the edge takes frames, in ms.

        0: exactly one frame, or None, at each tick. More (20): it buffers, gets frames as soon as
        there are any, up to the tick after next, and is never given None.
        """
        ...

    @property
    def latency_ms(self) -> float:
        """From `play` to the ear, in ms, as far as known; used by quality ``estimated``."""
        ...

    async def run(self, agent: AgentInput, ready: Callable[[], None]) -> None:
        """Be the line to the person until they are gone; then return.

        Calls ``ready`` once when they are there and sound may flow. Raises when the line can't be
        made. Cancelling it hangs up, within half a second, and leaves no task.
        """

    def play(self, frame: AudioFrame | None) -> None:
        """Take the next 20 ms for the person's ear; None is silence. Never blocks."""

    def clear(self) -> None:
        """Drop what was taken and not played yet; it counts as played for `report_played`."""


@runtime_checkable
class EventSink(Protocol):
    """An edge that also shows the conversation, as a page with a transcript does."""

    def send_event(self, event: Mapping[str, Json]) -> None:
        """Take the next public event, as JSON (see `event_to_json`); never blocks."""


@runtime_checkable
class WaitingEdge(Protocol):
    """An edge, such as a page, where the person may come long after the program began.

    The agent therefore checks the model before the person comes.
    """

    waits_for_person: bool
