"""Cartesia: voices with word times (`TTS`), and a recogniser that finds turns (`STT`)."""

from duologue.providers.cartesia._stt import STT
from duologue.providers.cartesia._tts import TTS

__all__ = ["STT", "TTS"]
