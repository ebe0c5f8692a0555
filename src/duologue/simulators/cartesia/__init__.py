"""A simulated Cartesia: voices and a recogniser with turns."""
