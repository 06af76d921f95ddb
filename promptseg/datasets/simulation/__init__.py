"""Simulated users: the boxes, clicks, strokes and margin points that people give."""
