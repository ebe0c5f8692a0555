"""Voice activity detection and endpointing: when a person speaks, pauses and has finished."""
