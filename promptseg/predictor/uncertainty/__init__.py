"""Where an answer is unsure, and where to look next."""

from __future__ import annotations

from promptseg.predictor.uncertainty.calibration import Calibration, calibration_of
from promptseg.predictor.uncertainty.maps import Ensemble, Sources, overruled, uncertainty_map
from promptseg.predictor.uncertainty.review import Interaction
from promptseg.predictor.uncertainty.suggestion import Suggestion, suggest
from promptseg.predictor.uncertainty.views import VIEWS, View

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
