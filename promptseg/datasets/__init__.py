"""Cohorts on disk and generated phantoms."""
