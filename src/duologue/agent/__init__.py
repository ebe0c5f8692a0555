"""The agent: joins a person on an edge to a model."""
