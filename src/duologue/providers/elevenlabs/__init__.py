"""ElevenLabs: voices with character times (`TTS`), and a recogniser (`STT`)."""

from duologue.providers.elevenlabs._stt import STT
from duologue.providers.elevenlabs._tts import TTS

__all__ = ["STT", "TTS"]
