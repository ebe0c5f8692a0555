"""Speech to text with Moonshine tiny-en on plain onnxruntime."""

from __future__ import annotations

import asyncio
import math
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duologue.audio import AudioFrame, Samples
from duologue.providers.local._draft import Draft
from duologue.providers.local._evidence import Token, drop_invented_digits, is_speech
from duologue.providers.local._inference import (
    InferenceSession,
    open_session,
    run_in_thread,
    to_floats,
)

RATE = 16000
TOKENS_PER_SECOND = 6.5
"""Tokens per second of audio at most, a limit by the model's authors, or it loops on noise."""
SEGMENT_SECONDS = 15
"""Seconds after which audio is split at a quiet point: the model was trained on short segments."""
SEARCH_SECONDS = 6
"""Seconds before the end of a segment in which a quiet point is searched."""

MIN_LEVEL = 30.0
"""Audio whose `loudest_level` is below this (-60 dB of full scale) has no transcript."""

_MIN_SAMPLES = 1600
_COMPOUND = re.compile(r"(?<![\w-])([a-z]{3,})-([a-z]{3,})(?![\w-])")
"""Compounds that the model joins at will ("ill-tempered"), which are split into words again."""
_QUOTES = "\"'\u201c\u201d\u2018\u2019"
_BEGIN_TOKEN = 1
_END_TOKEN = 2


def read_tokens(path: Path) -> list[bytes]:
    """Read ``tokenizer.bin``: for each token its length (two bytes from 128 up), then its bytes."""
    data = path.read_bytes()
    tokens: list[bytes] = []
    at = 0
    while at < len(data):
        size = data[at]
        at += 1
        if size >= 128:
            size = data[at] * 128 + size - 128
            at += 1
        tokens.append(data[at : at + size])
        at += size
    return tokens


@dataclass(frozen=True, slots=True)
class Transcript:
    """What the model wrote: the text, and the tokens that it was made of."""

    text: str = ""
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _CacheTensor:
    name: str
    heads: int
    width: int
    decoder: bool


class Moonshine:
    """English speech to text, an `STT` at 16 kHz; takes 10 to 20 ms a second of audio in a thread.

    ``encoder``, ``decoder`` and ``tokenizer`` are the three files of Moonshine tiny-en.
    """

    rate = RATE

    def __init__(self, encoder: Path, decoder: Path, tokenizer: Path) -> None:
        self._encoder = open_session(str(encoder))
        self._decoder = open_session(str(decoder))
        self._tokens = read_tokens(tokenizer)
        self._cache_tensors = _cache_tensors(self._decoder)
        self.transcribe(np.zeros(RATE, np.int16))  # the first run is twice as slow

    def stream(self) -> MoonshineStream:
        """Start on a new turn."""
        return MoonshineStream(self)

    def transcribe(
        self,
        samples: Samples,
        stopped: threading.Event | None = None,
        guess: Sequence[int] = (),
    ) -> Transcript:
        """Transcribe int16 samples at 16 kHz, at most about 20 s of them; blocks.

        Args:
            samples: The audio.
            stopped: Setting it makes this return soon; the transcript is then incomplete.
            guess: Tokens of an earlier transcript of this audio, which make this one faster.
        """
        if len(samples) < _MIN_SAMPLES or loudest_level(samples) < MIN_LEVEL:
            return Transcript()
        tokens = self._decode(samples, stopped or threading.Event(), Draft(guess))
        pieces = [Token(self._tokens[token], probability) for token, probability in tokens]
        kept = drop_invented_digits(pieces)
        text = b"".join(each.piece for each in kept).decode("utf-8", "replace")
        text = text.replace("\u2581", " ").strip()
        if len(kept) < len(tokens):
            text = text.rstrip("-, ")
        if is_speech(text, pieces, samples):
            text = _COMPOUND.sub(r"\1 \2", without_quotes(text))
        else:
            text = ""
        return Transcript(text, tuple(token for token, _ in tokens))

    def _decode(
        self, samples: Samples, stopped: threading.Event, draft: Draft
    ) -> list[tuple[int, float]]:
        """Return the tokens of ``samples``, each with its probability."""
        audio = to_floats(samples)[None]
        # The decoder takes the mask of the samples, not of the encoder's frames.
        mask = np.ones(audio.shape, np.int64)
        [hidden] = self._encoder.run(None, {"input_values": audio, "attention_mask": mask})
        feeds: dict[str, NDArray[Any]] = {
            cache.name: np.zeros((1, cache.heads, 0, cache.width), np.float32)
            for cache in self._cache_tensors
        }
        feeds["encoder_hidden_states"] = hidden
        feeds["encoder_attention_mask"] = mask
        tokens: list[tuple[int, float]] = []
        limit = max(4, math.ceil(len(samples) / RATE * TOKENS_PER_SECOND))
        is_first = True
        while len(tokens) < limit and not stopped.is_set():
            read = [tokens[-1][0] if tokens else _BEGIN_TOKEN, *draft.offer()]
            feeds["input_ids"] = np.array([read], np.int64)
            feeds["use_cache_branch"] = np.array([not is_first])
            logits, *present = self._decoder.run(None, feeds)
            decided = draft.settle(logits[0].argmax(axis=-1).tolist())
            for scores, token in zip(logits[0], decided, strict=False):
                if token == _END_TOKEN:
                    return tokens
                tokens.append((token, 1.0 / float(np.exp(scores - scores[token]).sum())))
            refused = len(read) - len(decided)
            for cache, value in zip(self._cache_tensors, present, strict=True):
                if cache.decoder:
                    feeds[cache.name] = value[:, :, : value.shape[2] - refused]
                elif is_first:
                    feeds[cache.name] = value  # it does not change after the first step
            is_first = False
        return tokens[:limit]


def without_quotes(text: str) -> str:
    """Remove quotation marks around a sentence, which the model takes for speech in a book.

    An apostrophe at the beginning of a word ("'cause") stays.
    """
    while len(text) > 1 and text[0] in _QUOTES and text[-1] in _QUOTES:
        text = text[1:-1].strip()
    text = text.strip('"\u201c\u201d')
    return text[1:] if text[:1] in ("'", "\u2018") and text[1:2].isupper() else text


class MoonshineStream:
    """One turn. Each `text` encodes all of it again, but decodes only what has changed: the last
    transcript is the guess for the next one (see `_draft`).
    """

    def __init__(self, model: Moonshine) -> None:
        self._model = model
        self._chunks: list[Samples] = []
        self._length = 0
        self._final_texts: list[str] = []
        self._last = Transcript()
        self._last_length = 0
        self._busy = asyncio.Lock()

    def push(self, frame: AudioFrame) -> None:
        """Append audio of the turn.

        Raises:
            ValueError: the rate is not 16 kHz.
        """
        if frame.rate != RATE:
            raise ValueError(f"Moonshine needs {RATE} Hz, not {frame.rate}")
        self._chunks.append(frame.samples)
        self._length += len(frame)

    async def text(self) -> str:
        """Return the best transcript of all audio pushed so far."""
        async with self._busy:
            while self._length > SEGMENT_SECONDS * RATE:
                audio = self._join()
                cut = find_quiet_point(audio[: SEGMENT_SECONDS * RATE])
                segment = await self._transcribe(audio[:cut])
                self._drop(cut)
                self._final_texts.append(segment.text)
            length = self._length
            if self._last_length != length:
                self._last = await self._transcribe(self._join())
                self._last_length = length
            return " ".join(part for part in (*self._final_texts, self._last.text) if part)

    async def _transcribe(self, audio: Samples) -> Transcript:
        """Transcribe in a thread, which stops soon after the caller is cancelled."""
        stopped = threading.Event()
        transcribe = partial(self._model.transcribe, audio, stopped, self._last.tokens)
        try:
            return await run_in_thread(transcribe)
        finally:
            stopped.set()

    async def close(self) -> None:
        """Release the audio of the turn."""
        self._chunks.clear()
        self._length = 0
        self._forget()

    def _join(self) -> Samples:
        if len(self._chunks) > 1:
            self._chunks = [np.concatenate(self._chunks)]
        return self._chunks[0] if self._chunks else np.zeros(0, np.int16)

    def _drop(self, samples: int) -> None:
        rest = self._join()[samples:]
        self._chunks = [rest]
        self._length = len(rest)
        self._forget()

    def _forget(self) -> None:
        self._last = Transcript()
        self._last_length = 0


def loudest_level(samples: Samples) -> float:
    """Return the root mean square of the loudest 50 ms, in int16 steps."""
    size = RATE // 20
    blocks = samples[: len(samples) // size * size].reshape(-1, size)
    return float(np.sqrt(np.square(blocks, dtype=np.float32).mean(axis=1).max()))


def find_quiet_point(audio: Samples) -> int:
    """Return where to split: the middle of the quietest 100 ms of the last `SEARCH_SECONDS`."""
    size = RATE // 10
    start = max(0, len(audio) - SEARCH_SECONDS * RATE)
    blocks = audio[start : start + (len(audio) - start) // size * size].reshape(-1, size)
    energy = np.square(blocks, dtype=np.float32).sum(axis=1)
    return start + int(energy.argmin()) * size + size // 2


def _cache_tensors(decoder: InferenceSession) -> list[_CacheTensor]:
    inputs = getattr(decoder, "get_inputs")()  # noqa: B009
    return [
        _CacheTensor(
            name=value.name,
            heads=value.shape[1],
            width=value.shape[3],
            decoder=".decoder." in value.name,
        )
        for value in inputs
        if value.name.startswith("past_key_values.")
    ]
