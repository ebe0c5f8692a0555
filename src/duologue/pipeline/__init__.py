"""The classic pipeline of VAD, turn detection, STT, LLM and TTS, as one `Realtime`."""
