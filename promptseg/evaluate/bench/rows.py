"""Names of what can be measured."""

from __future__ import annotations

ROWS = {
    "every-slice": "sam",
    "frontier": "sam",
    "region": "sam",
    "transformers": "sam",
    "sam-predictor": "sam",
    "sam2-every-slice": "sam2",
    "sam2-frontier": "sam2",
    "sam2-memory": "sam2",
    "sam2-video": "sam2",
    "default-region": "default",
    "default-frontier": "default",
    "default-whole": "default",
}
"""Group of each row; the last row of a group is what its ratios are to."""

CHECKS = ("agreement", "limit")
"""What is measured apart from the turns."""
