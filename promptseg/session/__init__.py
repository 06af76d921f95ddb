"""What users hold: a segmenter, a session of prompts and answers, the phases of a time series."""

from promptseg.session.segmenter import Segmenter
from promptseg.session.session import RefineMode, Session

__all__ = ["RefineMode", "Segmenter", "Session"]
