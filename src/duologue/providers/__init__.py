"""The models that duologue talks to, one package a provider; each is imported on its own."""
