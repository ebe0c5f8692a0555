"""What looks at a person's sound and pictures on their way to the model."""

from __future__ import annotations

from duologue.audio import AudioFrame
from duologue.video import VideoFrame


class Processor:
    """Subclass it and override what you need; runs on the event loop, so keep it short.

    Returning None drops the frame.
    """

    def audio(self, frame: AudioFrame) -> AudioFrame | None:
        """See, change or drop the next sound of the person."""
        return frame

    def video(self, frame: VideoFrame) -> VideoFrame | None:
        """See, change or drop a picture that is due for the model."""
        return frame
