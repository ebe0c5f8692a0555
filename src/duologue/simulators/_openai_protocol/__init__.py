"""The server's side of OpenAI's Realtime protocol, which the simulated OpenAI and Qwen share."""
