"""The interface between an agent and what records its conversation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from duologue.audio import AudioFrame
from duologue.clock import Clock

if TYPE_CHECKING:
    from duologue.agent.agent import Agent


class CallRecorder(Protocol):
    """Records one conversation; `duologue.observe.Recorder` is the one of this library.

    All methods are called on the event loop, and none but `end` may wait. An error that one of them
    raises is reported as an `ErrorEvent`, and ends the recording; the conversation continues.
    """

    @property
    def announcement(self) -> str:
        """What the agent says first, because people are to know that they are recorded; or ""."""
        ...

    def begin(self, agent: Agent, clock: Clock, unix_time: float) -> None:
        """Begin now, by the clock of the conversation; ``unix_time`` is the same moment."""

    def person_audio(self, frame: AudioFrame, now: float) -> None:
        """Record audio of the person, which arrived at ``now``, before any processor changes it."""

    def agent_audio(self, frame: AudioFrame, at: float) -> None:
        """Record audio that was handed to the edge to be played ``at`` that time."""

    def agent_cleared(self, now: float) -> None:
        """Forget agent audio that was to be played after ``now``: the edge has dropped it."""

    async def end(self) -> None:
        """Write what is left; the conversation is over. Must return within seconds."""


class GuardedRecorder:
    """Keeps the errors of a recorder away from the conversation.

    Args:
        recorder: What records, or None.
        report: Called with the first error of the recorder, which is then called no more.
    """

    def __init__(
        self, recorder: CallRecorder | None, report: Callable[[BaseException], None]
    ) -> None:
        self._recorder = recorder
        self._report = report

    @property
    def is_on(self) -> bool:
        """Whether anything is recorded."""
        return self._recorder is not None

    def begin(self, agent: Agent, clock: Clock, unix_time: float) -> str:
        """Begin, and return the announcement."""
        recorder = self._recorder
        if recorder is None:
            return ""
        self._call(lambda: recorder.begin(agent, clock, unix_time))
        return recorder.announcement if self._recorder is not None else ""

    def person_audio(self, frame: AudioFrame, now: float) -> None:
        """Pass on audio of the person."""
        if (recorder := self._recorder) is not None:
            self._call(lambda: recorder.person_audio(frame, now))

    def agent_audio(self, frame: AudioFrame, at: float) -> None:
        """Pass on audio of the agent."""
        if (recorder := self._recorder) is not None:
            self._call(lambda: recorder.agent_audio(frame, at))

    def agent_cleared(self, now: float) -> None:
        """Pass on that the edge has dropped what it had."""
        if (recorder := self._recorder) is not None:
            self._call(lambda: recorder.agent_cleared(now))

    async def end(self) -> None:
        """End the recording."""
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            try:
                await recorder.end()
            except Exception as error:  # noqa: BLE001 - reported
                self._report(error)

    def _call(self, method: Callable[[], None]) -> None:
        try:
            method()
        except Exception as error:  # noqa: BLE001 - reported
            self._recorder = None
            self._report(error)
