"""Simulated providers: a server that speaks a provider's protocol in front of any `Realtime`."""
