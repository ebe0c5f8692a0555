"""Deepgram: recognisers (`STT`) and voices (`TTS`), Flux and the families before it."""

from duologue.providers.deepgram._stt import STT
from duologue.providers.deepgram._tts import TTS

__all__ = ["STT", "TTS"]
