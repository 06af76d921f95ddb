"""Weights by name: registry, download and safe loading of checkpoints."""
