"""A project that learns from the corrections that are made anyway."""
