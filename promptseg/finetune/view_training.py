"""Teaching the coarse 3D view an adapter's organs (`--three-d`).

What is near the image and near the answer learns, an eleventh of the view's parameters, so that an
adapter stays small; what shapes look like in general stays as it was trained on many organs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from promptseg.adapters import Adapter
from promptseg.backbones.base import Backbone
from promptseg.datasets.cohort import Pair
from promptseg.finetune.case_loading import window_of
from promptseg.finetune.config import FinetuneConfig
from promptseg.finetune.trainer import Progress
from promptseg.finetune.view_lessons import Lesson, lessons_of
from promptseg.propagation.coarse import CoarseView, load_coarse
from promptseg.propagation.coarse_loss import coarse_loss
from promptseg.propagation.coarse_network import CoarseNetwork
from promptseg.session import Segmenter

# Parts of the network that learn: 0.31 of its 3.7 million parameters, 0.63 MB.
TAUGHT = ("stem.", "down.0.", "raised.", "up.0.", "up.1.", "head.", "quality.")
STEPS, BATCH, RATE, WARM, AVERAGE = 200, 4, 5e-4, 20, 0.98
# Looks are kept in memory, 3.4 MB each.
MOST_LESSONS = 400
BOXES, CHECK_BOXES = 4, 2
CHECK_CASES, CHECK_EVERY = 6, 5


@dataclass(frozen=True)
class Taught:
    """A taught view.

    Args:
        parameters: By name; empty where the view that ships is better on the checked cases.
        scores: Dice of the second looks by label before and after, as `AdapterInfo.scores` has it.
    """

    parameters: dict[str, Tensor]
    scores: dict[str, Any]


def teach_view(
    backbone: Backbone,
    adapter: Adapter,
    training: Sequence[Pair],
    validation: Sequence[Pair],
    config: FinetuneConfig,
    device: torch.device,
    view: CoarseView | None = None,
    progress: Progress | None = None,
) -> Taught:
    """Teach the view on the training cases, and keep it if it is better on others.

    Args:
        backbone: The base, without adapters; it is left so.
        adapter: As it was trained; its tracks are what the view is shown.
        training: Cases to learn from; every fifth is checked on where there are no others.
        validation: Cases to check on.
        config: Axis, window and seed.
        device: Where to compute.
        view: What to teach; the one that ships if None.
        progress: Called with "view", done, total.
    """
    base = load_coarse() if view is None else view
    learned, checked = list(training), list(validation)[:CHECK_CASES]
    if not checked and len(learned) >= CHECK_EVERY:
        checked = learned[CHECK_EVERY - 1 :: CHECK_EVERY]
        learned = [pair for pair in learned if pair not in checked]
    boxes = max(1, min(BOXES, MOST_LESSONS // (4 * max(1, len(learned)))))
    segmenter = Segmenter(backbone, str(device), "auto")
    segmenter.adapters.add(adapter)
    segmenter.adapters.use(adapter.name)
    try:
        lessons = looks_at(segmenter, base, learned, adapter, config, boxes)
        tests = looks_at(segmenter, base, checked, adapter, config, CHECK_BOXES)
    finally:
        segmenter.adapters.remove(adapter.name)
    if not lessons:
        return Taught({}, {})
    taught = learned_from(base, lessons, config.seed, device, progress)
    before, after = (dice_by_label(one, tests, device) for one in (base, base.taught(taught)))
    if tests and np.mean(list(after.values())) <= np.mean(list(before.values())):
        return Taught({}, scored(before))
    return Taught(taught, scored(after))


def looks_at(
    segmenter: Segmenter,
    view: CoarseView,
    pairs: Sequence[Pair],
    adapter: Adapter,
    config: FinetuneConfig,
    boxes: int,
) -> list[Lesson]:
    """Lessons of some cases."""
    found: list[Lesson] = []
    labels, window = list(adapter.info.labels), window_of(config)
    for number, pair in enumerate(pairs):
        rng = np.random.default_rng((config.seed, number, boxes))
        made = lessons_of(segmenter, view, pair.load(), labels, config.axis, window, boxes, rng)
        found.extend(made)
    return found


def learned_from(
    view: CoarseView,
    lessons: Sequence[Lesson],
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
    steps: int = STEPS,
) -> dict[str, Tensor]:
    """Values of the parameters that learn, after some steps of AdamW; the view stays as it is."""
    network = view.taught({}).network.to(device).train()
    average = {name: p.detach().clone() for name, p in learning(network)}
    optimiser = torch.optim.AdamW([p for _, p in learning(network)], RATE, weight_decay=0.01)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        falling = 0.02 + 0.49 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = RATE * falling * min(1.0, (step + 1) / WARM)
        chosen = [turned(lessons[int(rng.integers(len(lessons)))], rng) for _ in range(BATCH)]
        inputs = torch.stack([one.channels for one in chosen]).float().to(device)
        target = torch.stack([one.target for one in chosen]).float().to(device)
        logits, quality = network(inputs)
        loss, _ = coarse_loss(logits, quality, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay = min(AVERAGE, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, p in learning(network):
                average[name].lerp_(p, 1 - decay)
        if progress is not None:
            progress("view", step + 1, steps)
    return {name: value.cpu() for name, value in average.items()}


def learning(network: CoarseNetwork) -> list[tuple[str, torch.nn.Parameter]]:
    """Parameters that learn, by name."""
    return [(name, p) for name, p in network.named_parameters() if name.startswith(TAUGHT)]


def turned(lesson: Lesson, rng: np.random.Generator) -> Lesson:
    """The same with its axes in another order, some mirrored: a view has no up or down."""
    order = [int(n) for n in rng.permutation(3)]
    flips = [n for n in range(3) if rng.random() < 0.5]
    channels = lesson.channels.permute(0, *(n + 1 for n in order)).flip([n + 1 for n in flips])
    return Lesson(channels, lesson.target.permute(*order).flip(flips), lesson.label)


@torch.inference_mode()
def dice_by_label(
    view: CoarseView, lessons: Sequence[Lesson], device: torch.device
) -> dict[int, float]:
    """Mean Dice of looks by label."""
    found: dict[int, list[float]] = {}
    network = view.network.to(device).eval()
    for lesson in lessons:
        logits, _ = network(lesson.channels[None].float().to(device))
        mask = (logits[0] > 0).cpu()
        both = 2 * int((mask & lesson.target).sum())
        whole = int(mask.sum()) + int(lesson.target.sum())
        found.setdefault(lesson.label, []).append(both / whole if whole else 1.0)
    return {label: float(np.mean(values)) for label, values in found.items()}


def scored(by_label: dict[int, float]) -> dict[str, Any]:
    """Dice by label as `AdapterInfo.scores` has it."""
    nothing = {"mean": None, "std": None}
    return {str(label): {"dice": {"mean": value, "std": None}, "hd95_mm": nothing}
            for label, value in by_label.items()}  # fmt: skip
