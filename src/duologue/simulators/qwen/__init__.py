"""The server's side of Qwen Omni's realtime protocol; needs the ``simulate`` extra."""
