"""A simulated Deepgram: recognisers and voices of both generations."""
