"""Averaging the adapters of several sites: images stay where they are, adapters travel."""
