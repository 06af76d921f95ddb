"""How much of what a short run learned is kept: no more than boxes can stand."""

from __future__ import annotations

import logging

from promptseg.finetune.trainer import SHORT_STEPS, Trainer
from promptseg.finetune.validation import Validation

SHARES = (1.0, 0.7, 0.4, 0.2)
logger = logging.getLogger(__name__)


def kept_share(trainer: Trainer, validation: Validation | None) -> float:
    """The largest share of what was learned with which boxes do as well as without.

    Weights between the base's and those learned segment about as well as their ends or better
    (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022). A run of few steps may
    have left the base and not yet arrived: part of the way, or none, is then the better adapter.

    Args:
        trainer: At the end of its run.
        validation: Plain views; those of the training cases where none were set aside, and None
            where nothing is to be measured.

    Returns:
        1 for a run that was not short.
    """
    if trainer.step >= SHORT_STEPS or validation is None:
        return 1.0
    with trainer.weights.averaged(0.0):
        base = validation.boxes()
    for share in SHARES:
        with trainer.weights.averaged(share):
            found = validation.boxes()
        if found >= base:
            break
    else:
        share, found = 0.0, base
    if share < 1:
        logger.warning(
            "%d steps are few: %.0f %% of what they changed is kept, with which boxes reach Dice "
            "%.3f on %d slices (%.3f without); train longer to keep all",
            trainer.step, 100 * share, found, len(validation.views), base,
        )  # fmt: skip
    return share
