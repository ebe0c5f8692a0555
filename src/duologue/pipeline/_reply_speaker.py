"""`ReplySpeaker`: have the text of a reply spoken while it is written."""

from __future__ import annotations

from collections.abc import Callable

from duologue.audio import AudioFrame
from duologue.items import SurrogateJoiner
from duologue.pipeline._markup import MarkupFilter
from duologue.pipeline._thoughts import ThoughtFilter
from duologue.pipeline.interfaces import SpokenText, StoppedText, SynthesisOutput, TTSConnection
from duologue.realtime.outputs import ReplyAudio, ReplyHeard, ReplyText

type SpokenOutput = ReplyAudio | ReplyText | ReplyHeard
"""What a voice makes of a reply."""


class ReplySpeaker:
    """Speaks one item of a reply: text goes in as it comes, audio and spoken text come out.

    Args:
        voice: Speaks the text.
        reply_id: The reply of what is emitted.
        item_id: Its item.
        emit: Called with the audio, and with the text as the voice times it.
        script: The text comes from the program and is spoken unchanged. A model's text may contain
            thoughts, which are not spoken.
    """

    def __init__(
        self,
        voice: TTSConnection,
        reply_id: str,
        item_id: str,
        emit: Callable[[SpokenOutput], None],
        *,
        script: bool = False,
    ) -> None:
        self._reply_id = reply_id
        self._item_id = item_id
        self._emit = emit
        self._thoughts = None if script else ThoughtFilter()
        self._markup = MarkupFilter()
        self._joiner = SurrogateJoiner()
        self._text = ""
        """The text that was emitted."""
        self._synthesis = voice.synthesize(self._receive, hurry=not script)

    async def send(self, text: str) -> None:
        """Add text as it comes; wait while it is too far ahead of the audio."""
        text = self._joiner.push(text)
        await self._send(text if self._thoughts is None else self._thoughts.push(text))

    async def finish(self) -> None:
        """End the text."""
        rest = self._joiner.flush()
        if self._thoughts is not None:
            rest = self._thoughts.push(rest) + self._thoughts.flush()
        rest = self._markup.push(rest) + self._markup.flush()
        if rest:
            await self._synthesis.send(rest)
        self._synthesis.finish()

    async def wait(self) -> None:
        """Wait until all of it was spoken; raise what the voice raises."""
        await self._synthesis.wait()

    def cancel(self, played: int | None = None) -> None:
        """Stop at once; harmless when it is over.

        ``played`` is how many samples the person heard, which lets some voices tell their words.
        """
        self._synthesis.cancel(played)

    async def _send(self, text: str) -> None:
        text = self._markup.push(text)
        if text:
            await self._synthesis.send(text)

    def _receive(self, output: SynthesisOutput) -> None:
        match output:
            case AudioFrame():
                self._emit(ReplyAudio(self._reply_id, self._item_id, output))
            case SpokenText(text=text, start=start, end=end):
                self._text += text
                self._emit(ReplyText(self._reply_id, self._item_id, text, start, end=end))
            case StoppedText(text=said):
                heard = prefix_of(self._text, said)
                if heard is not None:
                    self._emit(ReplyHeard(self._reply_id, self._item_id, heard))


def prefix_of(text: str, said: str) -> str | None:
    """Return the beginning of ``text`` that ``said`` is, spaces apart; None if it is none."""
    length = 0
    for character in said:
        if character.isspace():
            continue
        while length < len(text) and text[length].isspace():
            length += 1
        if length == len(text) or text[length] != character:
            return None
        length += 1
    return text[:length]
