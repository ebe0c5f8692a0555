"""The server's side of OpenAI's Realtime protocol; needs the ``simulate`` extra."""
