"""The interface that every model has here, and the policy of a live session."""
