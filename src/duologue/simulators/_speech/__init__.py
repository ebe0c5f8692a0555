"""What the simulated services of voices and recognisers share."""
