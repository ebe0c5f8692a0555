"""What looks at a person's sound and pictures on their way to the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from duologue.audio import AudioFrame
from duologue.user_code import FailureReports, name_of
from duologue.video import VideoFrame


class Processor:
    """Subclass it and override what you need; runs on the event loop, so keep it short.

    Returning None drops the frame. So does an error, which is reported once in a while.
    """

    def audio(self, frame: AudioFrame) -> AudioFrame | None:
        """See, change or drop the next sound of the person."""
        return frame

    def video(self, frame: VideoFrame) -> VideoFrame | None:
        """See, change or drop a picture that is due for the model."""
        return frame


class ProcessorChain:
    """The processors of one conversation, in order; ``tell(source, message)`` gets failures.

    When a processor raises, the frame is dropped, and the conversation continues.
    """

    def __init__(
        self,
        processors: Sequence[Processor],
        tell: Callable[[str, str], None],
        now: Callable[[], float],
    ) -> None:
        self._processors = tuple(processors)
        self._failures = FailureReports(tell, now)

    def audio(self, frame: AudioFrame) -> AudioFrame | None:
        """Pass an audio frame through all processors; None if one of them drops it."""
        for processor in self._processors:
            try:
                changed = processor.audio(frame)
                if not isinstance(changed, AudioFrame | None):
                    raise TypeError(f"audio returns an AudioFrame or None, not {changed!r:.60}")
            except BaseException as error:  # noqa: BLE001 - reported
                self._fail(processor, error)
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
                self._fail(processor, error)
                return None
            if changed is None:
                return None
            frame = changed
        return frame

    def _fail(self, processor: Processor, error: BaseException) -> None:
        self._failures.report(f"processor {name_of(type(processor))}", error)
