"""The classic way, VAD, turn detection, STT, LLM and TTS, as one Realtime."""
