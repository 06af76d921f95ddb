"""Where an answer is unsure, and where to look next."""

from __future__ import annotations

from promptseg.uncertainty.calibration import Calibration, calibration_of
from promptseg.uncertainty.maps import Ensemble, Sources, overruled, uncertainty_map
from promptseg.uncertainty.review import Interaction
from promptseg.uncertainty.suggestion import Suggestion, suggest
from promptseg.uncertainty.views import VIEWS, View

__all__ = [
    "VIEWS",
    "Calibration",
    "Ensemble",
    "Interaction",
    "Sources",
    "Suggestion",
    "View",
    "calibration_of",
    "overruled",
    "suggest",
    "uncertainty_map",
]
