"""The server's side of the Gemini Live protocol."""
