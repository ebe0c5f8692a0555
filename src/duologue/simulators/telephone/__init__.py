"""Simulated carriers, which call an app with a telephone."""
