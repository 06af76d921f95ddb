"""Cohorts on disk: volumes, flat images, human strokes; and the synthetic CT."""
