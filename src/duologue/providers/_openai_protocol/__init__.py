"""The Realtime protocol of OpenAI, which Qwen and other servers speak too."""
