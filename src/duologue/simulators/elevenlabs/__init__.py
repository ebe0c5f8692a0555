"""A simulated ElevenLabs: voices and a recogniser."""
