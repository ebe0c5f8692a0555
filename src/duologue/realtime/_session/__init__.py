"""The policy of a live session; only `duologue.realtime` imports it."""
