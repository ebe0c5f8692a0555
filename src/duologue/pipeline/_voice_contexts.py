"""The replies of one voice, over the contexts and connections of its service (sans-IO).

    Synthesis.send ──> ClauseSplitter ──> VoiceContexts ──> codec ──> messages to send
                                               |
    receive <── AudioFrame, SpokenText <── WordAligner <── codec.decode <── messages received

A reply is what the pipeline knows: text in, audio out. A context is what the service knows. Usually
a reply is one context, but not always, and that is what this class hides:

- The connection is lost. The reply continues in a context of the next connection, with the text
  behind the last word whose audio had come whole. Its audio and times go on where they were.
- The service ends a context by itself (Cartesia does a second after its last audio), and the model
  writes on, for example after a tool. The rest gets a new context.
- The service takes only ``max_contexts`` at once, cancelled ones included until it has confirmed
  their end. A reply that has no context yet keeps its text.

Everything is synchronous. Messages to send are collected, and taken by `messages`. Events of
contexts that no reply owns any more are dropped, so nothing of a cancelled reply comes through
whatever the service still sends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from uuid import uuid4

from duologue._word_timing import has_letters, prefix_within
from duologue.errors import ErrorKind, SessionError
from duologue.pipeline._clause_splitter import ClauseSplitter
from duologue.pipeline._word_alignment import WordAligner
from duologue.pipeline.interfaces import SpokenText, StoppedText, SynthesisOutput
from duologue.pipeline.tts_codec import (
    ContextAudio,
    ContextClause,
    ContextEnded,
    ContextFailed,
    ContextStopped,
    ContextTokens,
    TTSCodec,
    VoiceEvent,
    VoiceFailed,
    VoiceTraits,
)

MAX_TRIES = 3
"""Connections on which a reply may make no progress before it fails."""
MAX_TEXT_CHARS = 100_000
"""Characters of one reply that may wait for the service."""
UNTIMED_S = 1.0
"""Seconds of audio without words behind which the service has left out the times."""
_CHARS_PER_S = 14.0
"""How fast a voice speaks whose service gives no times, in characters of the Latin script."""


class Reply:
    """The state of one reply, in the hands of `VoiceContexts`."""

    __slots__ = (
        "aligner",
        "audio_at_start",
        "chars_at_audio",
        "clause",
        "context",
        "context_text",
        "earlier_text",
        "error",
        "finished",
        "flushed",
        "held",
        "over",
        "receive",
        "repeated_chars",
        "said_chars",
        "samples",
        "splitter",
        "tries",
        "unsent",
    )

    def __init__(
        self, receive: Callable[[SynthesisOutput], None], splitter: ClauseSplitter | None
    ) -> None:
        self.receive = receive
        self.splitter = splitter
        self.unsent: deque[str] = deque()
        """Texts that the service does not have."""
        self.samples = 0
        """Samples of audio so far."""
        self.flushed = False
        self.finished = False
        self.over = False
        self.error: SessionError | None = None
        self.tries = 0
        """Connections without progress."""
        self.earlier_text = ""
        """Text that earlier contexts have spoken."""
        self.repeated_chars = 0
        """Characters of the text to be sent that were output before, by a context that was lost."""
        self.context: str | None = None
        self.context_text = ""
        """Text that the context was sent."""
        self.chars_at_audio = 0
        """Characters of ``context_text`` that the service had when its newest audio came."""
        self.said_chars = 0
        """Characters of ``context_text`` whose audio has come whole, or whose clause has begun."""
        self.clause = (0, 0)
        """Where the newest clause begins: in ``context_text``, and in samples of the context."""
        self.audio_at_start = 0
        """Samples when the context began."""
        self.aligner = WordAligner(1)
        self.held: deque[SpokenText] = deque()
        """Timed words whose audio has not come whole, with samples of the context."""

    @property
    def context_samples(self) -> int:
        """Samples of audio of its context."""
        return self.samples - self.audio_at_start

    @property
    def waits_for_audio(self) -> bool:
        """Whether the service has all its text, and should be speaking."""
        return self.context is not None and self.finished


class VoiceContexts[M]:
    """All replies of one voice; ``rate`` is that of its audio in Hz."""

    def __init__(self, traits: VoiceTraits, rate: int) -> None:
        self.traits = traits
        self.rate = rate
        self._codec: TTSCodec[M] | None = None
        self._replies: deque[Reply] = deque()
        """Replies that are not over, oldest first."""
        self._owners: dict[str, Reply] = {}
        self._stopping: dict[str, Reply] = {}
        """Cancelled contexts that the service has not ended yet."""
        self._messages: list[M] = []

    @property
    def has_work(self) -> bool:
        """Whether a reply needs the service: it has text, and is not over."""
        return any(
            reply.unsent or reply.context is not None or reply.finished for reply in self._replies
        )

    @property
    def waits_for_audio(self) -> bool:
        """Whether the service should be sending something."""
        return bool(self._stopping) or any(reply.waits_for_audio for reply in self._replies)

    def messages(self) -> list[M]:
        """Return, once, the messages to send."""
        messages, self._messages = self._messages, []
        return messages

    def start(self, receive: Callable[[SynthesisOutput], None], *, hurry: bool) -> Reply:
        """Begin a reply; it gets a context when it has text."""
        splitter = ClauseSplitter(hurry=hurry) if self.traits.splits else None
        reply = Reply(receive, splitter)
        self._replies.append(reply)
        return reply

    def send(self, reply: Reply, text: str) -> None:
        """Add text of a reply."""
        if reply.over or reply.finished:
            return
        pieces = reply.splitter.push(text) if reply.splitter is not None else [text]
        self._queue(reply, [piece for piece in pieces if piece])

    def flush(self, reply: Reply) -> None:
        """Have all text of a reply spoken now."""
        if reply.over or reply.finished:
            return
        if reply.splitter is not None:
            self._queue(reply, reply.splitter.flush())
        if reply.context is not None and not reply.unsent and self._codec is not None:
            self._messages += self._codec.flush(reply.context)
        reply.flushed = True

    def finish(self, reply: Reply) -> None:
        """End the text of a reply."""
        if reply.over or reply.finished:
            return
        if reply.splitter is not None:
            self._queue(reply, reply.splitter.flush())
        reply.finished = True
        if reply.context is not None and not reply.unsent and self._codec is not None:
            self._messages += self._codec.finish(reply.context)
        elif reply.context is None and not reply.unsent:
            self._end(reply)

    def cancel(self, reply: Reply, played: int | None) -> None:
        """Stop a reply, of which the person heard ``played`` samples."""
        if reply.over:
            return
        context = reply.context
        self._end(reply)
        if context is None or self._codec is None:
            return
        if self.traits.confirms_cancel:
            self._stopping[context] = reply
        played_s = None if played is None else max(0, played - reply.audio_at_start) / self.rate
        self._messages += self._codec.cancel(context, played_s)

    def connected(self, codec: TTSCodec[M]) -> None:
        """Continue on a new connection."""
        self._codec = codec
        self._messages += codec.open()
        self._advance()

    def disconnected(self, error: SessionError | None) -> None:
        """Take back what the lost connection had not spoken.

        A reply that fails too often, or by an error that a new connection won't help, ends with
        ``error``.
        """
        self._codec = None
        self._messages.clear()
        self._owners.clear()
        self._stopping.clear()
        fatal = error is not None and error.kind is ErrorKind.FATAL
        for reply in [*self._replies]:
            if reply.context is not None:
                self._take_back(reply)
            elif not (reply.unsent or reply.finished):
                continue
            reply.tries += 1
            if error is not None and (fatal or reply.tries > MAX_TRIES):
                reply.error = error
                self._end(reply)

    def received(self, message: M) -> SessionError | None:
        """Process a message; return the error that ends the connection, if it has one."""
        if self._codec is None:
            return None
        for event in self._codec.decode(message):
            error = self._apply(event)
            if error is not None:
                return error
        return None

    def _apply(self, event: VoiceEvent) -> SessionError | None:
        if isinstance(event, VoiceFailed):
            return event.error
        reply = self._owners.get(event.context)
        match event:
            case ContextAudio(frame=frame) if reply is not None:
                reply.tries = 0
                reply.samples += len(frame)
                reply.chars_at_audio = len(reply.context_text)
                reply.receive(frame)
                self._release_words(reply)
            case ContextTokens(tokens=tokens) if reply is not None:
                for text, start, end in tokens:
                    reply.held += reply.aligner.token(text, start, end)
                self._release_words(reply)
            case ContextClause(text=text) if reply is not None:
                reply.clause = (reply.said_chars, reply.context_samples)
                self._output(reply, SpokenText(text, reply.context_samples))
            case ContextEnded():
                self._context_ended(event.context)
            case ContextStopped(text=text):
                stopped = self._stopping.get(event.context)
                if stopped is not None and text is not None:
                    stopped.receive(StoppedText(stopped.earlier_text + text))
                self._context_ended(event.context)
            case ContextFailed(error=error):
                if reply is not None and error.kind is ErrorKind.RECYCLE:
                    return error  # Too many contexts, for example: try again, a little later.
                if reply is not None:
                    reply.error = error
                    self._end(reply)
                self._context_ended(event.context)
            case _:
                pass  # Of a context that is over for us.
        return None

    def _context_ended(self, context: str) -> None:
        self._stopping.pop(context, None)
        reply = self._owners.get(context)
        if reply is not None:
            unspoken = ""
            if self.traits.timing == "words":
                unspoken = self._unspoken(reply)
                reply.held += reply.aligner.finish(reply.context_samples)
                _drop_end(reply.held, len(unspoken))
                self._release_words(reply, all_of_them=True)
            reply.earlier_text += reply.context_text[: len(reply.context_text) - len(unspoken)]
            self._detach(reply)
            if unspoken:
                reply.tries += 1
                reply.unsent.appendleft(unspoken)
            if reply.finished and not reply.unsent:
                self._end(reply)
        self._advance()

    def _unspoken(self, reply: Reply) -> str:
        """Return the text that was on its way when the service ended the context by itself.

        No audio has come since it was sent. After `MAX_TRIES` it is taken for text that the service
        does not speak.
        """
        text = reply.context_text[reply.chars_at_audio :]
        return text if has_letters(text) and reply.tries < MAX_TRIES else ""

    def _queue(self, reply: Reply, pieces: Sequence[str]) -> None:
        if not pieces:
            return
        if sum(map(len, reply.unsent)) + sum(map(len, pieces)) > MAX_TEXT_CHARS:
            reply.error = SessionError("the voice does not keep up: too much text waits for it")
            self._end(reply)
            return
        reply.unsent.extend(pieces)
        reply.flushed = False
        self._advance()

    def _advance(self) -> None:
        """Send what can be sent, oldest reply first."""
        codec = self._codec
        if codec is None:
            return
        for reply in [*self._replies]:
            if not reply.unsent:
                continue
            if reply.context is None:
                if len(self._owners) + len(self._stopping) >= self.traits.max_contexts:
                    return
                context = self._attach(reply, codec)
            else:
                context = reply.context
            while reply.unsent:
                text = reply.unsent.popleft()
                self._messages += codec.text(context, text)
                self._sent(reply, text)
            if reply.finished:
                self._messages += codec.finish(context)
            elif reply.flushed:
                self._messages += codec.flush(context)

    def _attach(self, reply: Reply, codec: TTSCodec[M]) -> str:
        context = reply.context = uuid4().hex
        reply.audio_at_start = reply.samples
        reply.aligner = WordAligner(self.rate)
        reply.context_text, reply.said_chars, reply.chars_at_audio = "", 0, 0
        reply.clause = (0, 0)
        reply.held.clear()
        self._owners[context] = reply
        self._messages += codec.start(context)
        return context

    def _sent(self, reply: Reply, text: str) -> None:
        reply.context_text += text
        match self.traits.timing:
            case "words":
                reply.held += reply.aligner.send(text)
                self._release_words(reply)
            case "clauses":
                pass  # `ContextClause` says where it begins.
            case "none":
                self._output(reply, SpokenText(text))

    def _release_words(self, reply: Reply, *, all_of_them: bool = False) -> None:
        """Output the words whose audio has come whole, so that none is lost with a connection."""
        samples = reply.context_samples
        while reply.held:
            end = reply.held[0].end
            if not all_of_them and (end is None or end > samples):
                return
            self._output(reply, reply.held.popleft())

    def _output(self, reply: Reply, spoken: SpokenText) -> None:
        """Output a text whose times count from the start of the context, unless it was before."""
        reply.said_chars += len(spoken.text)
        repeated = min(reply.repeated_chars, len(spoken.text))
        reply.repeated_chars -= repeated
        text = spoken.text[repeated:]
        if not text:
            return
        start = None if spoken.start is None else spoken.start + reply.audio_at_start
        end = None if spoken.end is None else spoken.end + reply.audio_at_start
        reply.receive(SpokenText(text, start, end))

    def _take_back(self, reply: Reply) -> None:
        """Move the text that the lost context had not spoken back to what is to be sent."""
        said, text = reply.said_chars, reply.context_text
        if self.traits.timing != "words":
            # Its text was output before its audio, so estimate how far the audio is.
            begin, at = reply.clause
            seconds = (reply.context_samples - at) / self.rate
            spoken = begin + len(prefix_within(text[begin:said], seconds * _CHARS_PER_S))
            reply.repeated_chars += said - spoken
            said = spoken
        else:
            said += self._take_untimed(reply)
        self._detach(reply)
        reply.earlier_text += text[:said]
        if text[said:]:
            reply.unsent.appendleft(text[said:])
        if reply.finished and not reply.unsent:
            self._end(reply)

    def _take_untimed(self, reply: Reply) -> int:
        """Output the text of audio for which no times came; return its estimated length."""
        end = reply.aligner.end
        seconds = (reply.context_samples - end) / self.rate
        if seconds < UNTIMED_S:
            return 0
        rest = reply.context_text[reply.said_chars :]
        text = prefix_within(rest, seconds * _CHARS_PER_S)
        if text:
            self._output(reply, SpokenText(text, end, reply.context_samples))
        return len(text)

    def _detach(self, reply: Reply) -> None:
        if reply.context is not None:
            self._owners.pop(reply.context, None)
            reply.context = None

    def _end(self, reply: Reply) -> None:
        self._detach(reply)
        reply.over = True
        reply.unsent.clear()
        if reply in self._replies:
            self._replies.remove(reply)


def _drop_end(words: deque[SpokenText], count: int) -> None:
    """Remove the last ``count`` characters."""
    while count and words:
        last = words.pop()
        if len(last.text) > count:
            words.append(replace(last, text=last.text[:-count]))
            return
        count -= len(last.text)
