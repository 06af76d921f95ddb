"""What fine-tuning minimises, by name: one file a member, one class, losses out of a batch.

A new objective is a file with a subclass of `base.Objective` and a line in `OBJECTIVES`. It asks
the network what it sees in a batch (`base.Seen`: class logits, a second branch, level sets, the
loss of what is annotated) and gives one number; so it runs on adapters and on plain networks.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from promptseg.errors import FormatError

if TYPE_CHECKING:
    from promptseg.finetune.objectives.base import Objective

# Modules are imported when they are asked for: the names alone must not load torch.
OBJECTIVES: dict[str, str] = {
    "supervised": "supervised:Supervised",
    "scribble": "scribble:MixedPseudoLabels",
    "semi": "semi:DualTaskConsistency",
    "pce": "pce:PartialCrossEntropy",
    "crf": "crf:CrfRegularised",
    "entropy": "entropy:EntropyMinimisation",
    "consistency": "consistency:BranchConsistency",
    "cps": "cps:CrossPseudoSupervision",
    "random_walker": "random_walker:RandomWalker",
    "prompted": "prompted:Prompted",
    "mean_teacher": "mean_teacher:MeanTeacher",
    "uncertain_teacher": "uncertain_teacher:UncertainTeacher",
    "fixmatch": "fixmatch:FixMatch",
}


def objective_class(name: str) -> type[Objective]:
    """The class of an objective.

    Raises:
        FormatError: No objective has that name.
    """
    if name not in OBJECTIVES:
        raise FormatError(f"objective is {name!r}: use {' or '.join(OBJECTIVES)}")
    module, _, called = OBJECTIVES[name].partition(":")
    found: type[Objective] = getattr(import_module(f"{__name__}.{module}"), called)
    return found
