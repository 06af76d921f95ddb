"""Errors that promptseg raises; each is also the builtin that a caller would expect."""

from __future__ import annotations


class PromptsegError(Exception):
    """Root of every error that promptseg raises on purpose."""


class VolumeError(PromptsegError, ValueError):
    """A volume cannot be used: wrong dimensions, bad spacing, no finite voxel."""


class PromptError(PromptsegError, ValueError):
    """A prompt is outside the volume, empty, inverted or not a number."""


class WeightsError(PromptsegError, OSError):
    """A checkpoint is unknown, missing, corrupt or unsafe to load."""


class AdapterError(PromptsegError, ValueError):
    """An adapter does not fit the model it is loaded into."""


class FormatError(PromptsegError, OSError):
    """A file is missing, truncated or not of the format it claims."""
