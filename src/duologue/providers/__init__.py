"""The providers of models, one package each; each package is imported separately."""
