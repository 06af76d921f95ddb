"""Whether two ways of computing the same network agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from promptseg.evaluate.bench.contenders import AXIS
from promptseg.evaluate.bench.scenes import Scene, slice_boxes
from promptseg.evaluate.metrics import dice
from promptseg.prompts.types import PromptSet
from promptseg.session import Segmenter


@dataclass(frozen=True)
class Agreement:
    """How masks and logits agree on a few slices.

    Args:
        slices: How many.
        mixed: Dice of our masks in mixed precision with ours in float32.
        others: Dice of our masks in float32 with those of others, which are in float32.
        correlation: Of our logits in mixed precision with those in float32.
        level_dice: Of both logits cut one standard deviation above the mean of those in
            float32, wherever the network's own threshold lies.
    """

    slices: int
    mixed: float
    others: dict[str, float]
    correlation: float
    level_dice: float


def agreement(
    segmenter: Segmenter, scene: Scene, count: int, others: Mapping[str, np.ndarray]
) -> Agreement:
    """Compare on `count` slices about the middle of the target.

    Args:
        segmenter: Ours, in the precision that was timed.
        scene: What is segmented.
        count: Slices.
        others: (I, J, K) bool masks of the others by name, on the whole volume.
    """
    prompts = middle_boxes(scene, count)
    places = [int(box.lo[AXIS]) for box in prompts]  # type: ignore[union-attr]
    plain = Segmenter(segmenter.backbone, str(segmenter.device), "fp32", 1)
    mixed, coarse = masks_and_logits(segmenter, scene, prompts)
    exact, fine = masks_and_logits(plain, scene, prompts)
    level = fine.mean() + fine.std()
    beside = {name: dice(exact[..., places], masks[..., places]) for name, masks in others.items()}
    return Agreement(
        len(prompts),
        dice(mixed, exact),
        beside,
        float(np.corrcoef(coarse.ravel(), fine.ravel())[0, 1]),
        dice(coarse > level, fine > level),
    )


def middle_boxes(scene: Scene, count: int) -> PromptSet:
    """Boxes on `count` slices about the middle of the first target."""
    boxes = slice_boxes(scene.targets[0], everywhere=False)
    first = max(0, (len(boxes) - count) // 2)
    return boxes[first : first + count]


def masks_and_logits(
    segmenter: Segmenter, scene: Scene, prompts: PromptSet
) -> tuple[np.ndarray, np.ndarray]:
    """(I, J, K) bool answers on N prompted slices, and their (N, m, m) logits."""
    session = segmenter.session(scene.volume, AXIS)
    session.add(*prompts)
    answer = session.answer(propagate=False)
    resolved = session.prompts.to_voxel(scene.volume)
    groups = session.asker.prepared(resolved, AXIS).run(resolved, propagate=False)
    found = [mask for g in groups for slices in g.answers.values() for mask in slices.values()]
    return answer.data > 0, torch.stack([mask.logits for mask in found]).numpy()
