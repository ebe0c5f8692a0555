"""The interface between an agent and the place where its person is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from duologue.audio import AudioFrame
from duologue.json_types import Json
from duologue.quality import Quality
from duologue.video import VideoFrame


class AgentInput(Protocol):
    """The agent as an edge sees it: an edge passes everything from the person to these methods.

    All of them must be called on the event loop, and none blocks.
    """

    def push_audio(self, frame: AudioFrame) -> None:
        """Pass on the person's next audio, at any rate and of any length."""

    @property
    def wants_video(self) -> bool:
        """Whether the agent uses video; if False, an edge should not capture any."""
        ...

    def push_video(self, make_frame: Callable[[], VideoFrame]) -> None:
        """Announce a new video frame; ``make_frame`` is called only if the frame is used."""

    def push_text(self, text: str) -> None:
        """Pass on a text that the person wrote; the agent replies to it as to speech."""

    def push_digit(self, digit: str) -> None:
        """Pass on a key that the person pressed: 0 to 9, ``*``, ``#``, or A to D."""

    def report_played(self, samples: int) -> None:
        """Report how many samples of all audio given to `Edge.play` have been played.

        Args:
            samples: Total since the edge opened, at the edge's ``output_rate``. Silence counts, and
                each None counts as one frame.
        """

    def connection_lost(self) -> None:
        """Pause the agent's audio, because the person can't hear it for now.

        What was given to `Edge.play` and not reported as played is taken back.
        """

    def connection_restored(self) -> None:
        """Let the agent's audio go on where the person heard it last."""

    async def wait_until_listening(self) -> None:
        """Wait until the model receives audio. Earlier audio is kept for it, up to ten seconds."""

    @property
    def is_idle(self) -> bool:
        """Whether neither side is speaking, and the agent has nothing to play, to make or to wait
        for.
        """
        ...


class Edge(Protocol):
    """Connects one person to an agent.

    The output clock calls `play` every 20 ms. On `clear`, an edge must drop at once whatever it was
    given and has not played.
    """

    @property
    def output_rate(self) -> int:
        """Rate in Hz of the frames that `play` accepts, such as 16000, 24000 or 48000."""
        ...

    @property
    def quality(self) -> Quality:
        """How reliable the reports to `AgentInput.report_played` are; ``estimated`` if it makes
        none.
        """
        ...

    @property
    def lead_ms(self) -> int:
        """Milliseconds ahead of real time at which the edge accepts frames.

        With 0, the edge gets exactly one frame, or None, at each tick. With 20, it buffers: it gets
        frames as soon as there are any, up to the tick after next, and never None.
        """
        ...

    @property
    def latency_ms(self) -> float:
        """Milliseconds from `play` to the ear, as far as known; used with quality ``estimated``."""
        ...

    async def run(self, agent: AgentInput, ready: Callable[[], None]) -> None:
        """Connect the person, and return when they have left.

        Cancelling it must hang up within half a second and leave no task.

        Args:
            agent: Receives everything that comes from the person.
            ready: To be called once, when the person is connected and audio may flow.

        Raises:
            Exception: The person could not be connected, or the connection was lost.
        """

    def play(self, frame: AudioFrame | None) -> None:
        """Play the next 20 ms to the person; None is silence. Never blocks."""

    def clear(self) -> None:
        """Drop audio that was accepted and not played; it counts as played in `report_played`."""


@runtime_checkable
class EventSink(Protocol):
    """An edge that also shows the conversation, such as a page with a transcript."""

    def send_event(self, event: Mapping[str, Json]) -> None:
        """Show the next public event, which is JSON (see `event_to_json`). Never blocks.

        ``session_config`` is left out, because it holds the instructions and the tools.
        """


@runtime_checkable
class WaitingEdge(Protocol):
    """An edge, such as a page, whose person may come long after the program began.

    The agent checks its connection to the model before the person comes.
    """

    waits_for_person: bool


@dataclass(frozen=True, slots=True)
class EdgeStats:
    """What an edge has lost or dropped so far; 0 where an edge cannot know.

    Attributes:
        overflowed_s: Seconds of agent audio rejected because the device's buffer was full.
        starved_s: Seconds of silence that the device played within agent audio.
        dropped_input_s: Seconds of input audio dropped because the event loop was too busy.
        lost_packets: Audio packets of the person that did not arrive in time.
        dropped_video_packets: Video packets dropped because the decoder was too slow.
        dropped_messages: Messages to the page dropped because its connection was too slow.
        dropped_events: Events for the page dropped because its connection was too slow.
        peer_lost_packets: Audio packets of the agent that the other side reports as lost.
        rtt_ms: Round trip of audio packets to the other side, as it reports.
        jitter_ms: Jitter of the person's audio packets on their arrival.
    """

    overflowed_s: float = 0.0
    starved_s: float = 0.0
    dropped_input_s: float = 0.0
    lost_packets: int = 0
    dropped_video_packets: int = 0
    dropped_messages: int = 0
    dropped_events: int = 0
    peer_lost_packets: int = 0
    rtt_ms: float = 0.0
    jitter_ms: float = 0.0


@runtime_checkable
class MeasuredEdge(Protocol):
    """An edge that counts what it loses."""

    def stats(self) -> EdgeStats:
        """Return the counters so far."""
        ...
