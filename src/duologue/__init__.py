"""Live spoken conversation between people and models."""
