"""`Processor`: inspect or change a person's audio and video on the way to the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from duologue._user_code import FailureReports, name_of
from duologue.audio import AudioFrame
from duologue.video import VideoFrame


class Processor:
    """Base class: override what you need. It runs on the event loop, so keep it short.

    Returning None drops the frame. So does an error, which is reported at most now and then.
    """

    def audio(self, frame: AudioFrame) -> AudioFrame | None:
        """Inspect, change or drop the next audio of the person."""
        return frame

    def video(self, frame: VideoFrame) -> VideoFrame | None:
        """Inspect, change or drop a video frame that is due for the model."""
        return frame


class ProcessorChain:
    """The processors of one conversation, in order; failures go to ``report(source, message)``.

    When a processor raises, the frame is dropped, and the conversation continues.
    """

    def __init__(
        self,
        processors: Sequence[Processor],
        report: Callable[[str, str], None],
        now: Callable[[], float],
    ) -> None:
        self._processors = tuple(processors)
        self._failures = FailureReports(now, report)

    def audio(self, frame: AudioFrame) -> AudioFrame | None:
        """Pass an audio frame through all processors; None if one of them drops it."""
        for processor in self._processors:
            try:
                changed = processor.audio(frame)
                if not isinstance(changed, AudioFrame | None):
                    raise TypeError(f"audio returns an AudioFrame or None, not {changed!r:.60}")
            except BaseException as error:  # noqa: BLE001 - reported
                self._report_failure(processor, error)
                return None
            if changed is None:
                return None
            frame = changed
        return frame

    def video(self, frame: VideoFrame) -> VideoFrame | None:
        """Pass a video frame through all processors; None if one of them drops it."""
        for processor in self._processors:
            try:
                changed = processor.video(frame)
                if not isinstance(changed, VideoFrame | None):
                    raise TypeError(f"video returns a VideoFrame or None, not {changed!r:.60}")
            except BaseException as error:  # noqa: BLE001 - reported
                self._report_failure(processor, error)
                return None
            if changed is None:
                return None
            frame = changed
        return frame

    def _report_failure(self, processor: Processor, error: BaseException) -> None:
        self._failures.report(f"processor {name_of(type(processor))}", error)
