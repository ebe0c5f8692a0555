"""Edges connect an agent to a person: at a browser, at a microphone, in files."""
