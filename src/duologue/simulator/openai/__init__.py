"""OpenAI's Realtime protocol, the server's side; needs the ``simulate`` extra."""
