"""Prompts of a user: types, validation, serialization and scribble files."""
