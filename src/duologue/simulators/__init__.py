"""Simulated providers: servers that speak a provider's protocol in front of any `Realtime`."""
