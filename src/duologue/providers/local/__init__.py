"""The engine inside: speech recognition, a small language model and a voice, on this machine."""
