"""Tracks from the prompted slices through the volume, and where they stop."""
