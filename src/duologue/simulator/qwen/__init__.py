"""Qwen Omni Realtime on this machine."""
