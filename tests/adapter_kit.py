"""Small backbones, adapters with random values and labelled discs, for tests of adapters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from support import discs, ragged_prompts, tiny_default, tiny_sam
from torch import Tensor

from promptseg.adapters import Adapter, AdapterInfo, base_digest
from promptseg.backbones.base import Backbone, PixelPrompts, PromptBatch
from promptseg.finetune.config import FinetuneConfig
from promptseg.finetune.lora import make_learner
from promptseg.finetune.organ_case import OrganCase, organ_case
from promptseg.volume import Volume

BACKBONES = {"default": tiny_default, "sam": tiny_sam}
METHODS: dict[str, dict[str, Any]] = {
    "attention": {},
    "attention_all": {"targets": "attention_all", "decoder": "frozen"},
    "mlp": {"targets": "attention+mlp", "alpha": 3.0, "rank": 3},
    "convolutions": {"targets": "convolutions", "decoder": "frozen"},
    "dora": {"dora": True, "targets": "attention+mlp"},
    "rslora": {"rslora": True, "decoder": "lora"},
    "decoder only": {"encoder": "frozen"},
    "full": {"encoder": "full"},
}


def config(**options: Any) -> FinetuneConfig:
    """A short recipe in single precision."""
    short = {"organ": "disc", "steps": 4, "batch": 2, "rank": 2, "alpha": 4.0, "device": "cpu"}
    plain = {
        "half": 0.0,
        "precision": "fp32",
        "validation_slices": 0,
        "final_slices": 0,
        "rate": 2e-3,
    }
    return FinetuneConfig(**{**short, **plain, **options})


def info_of(backbone: Backbone, chosen: FinetuneConfig, lora: bool, **further: Any) -> AdapterInfo:
    """promptseg.json of an adapter that was never trained."""
    method = "none" if not lora else "dora" if chosen.dora else "lora"
    known = AdapterInfo(
        organ="disc",
        labels={1: "disc", 4: "ring"},
        backbone=backbone.spec.name,
        family=backbone.spec.family,
        base_sha256=base_digest(backbone),
        method=method,  # type: ignore[arg-type]
        rank=chosen.rank if lora else 0,
        alpha=chosen.alpha,
        rslora=chosen.rslora,
        targets=chosen.target_names,
        decoder=chosen.decoder,
    )
    return replace(known, **further)


def random_adapter(
    backbone: Backbone, name: str = "one", seed: int = 0, strength: float = 0.05, **options: Any
) -> tuple[Adapter, Tensor]:
    """An adapter with random values, and what the backbone answers with it in place.

    The backbone is as before afterwards.
    """
    chosen = config(seed=seed, **options)
    digest_first = info_of(backbone, chosen, chosen.uses_lora)
    learner = make_learner(backbone, chosen, 2)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in learner.parameters.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * strength)
            parameter.copy_(parameter.half().float())
    answer = answers(backbone, learner.tokens.detach()[:1])
    adapter = learner.adapter(name, digest_first)
    learner.release()
    return adapter, answer


@torch.no_grad()
def answers(backbone: Backbone, token: Tensor | None = None) -> Tensor:
    """Logits of fixed prompts on fixed images, and of a token without a prompt."""
    spec = backbone.spec
    backbone.module.eval()
    generator = torch.Generator().manual_seed(9)
    images = torch.rand(2, 3, spec.input_size, spec.input_size, generator=generator)
    embedding = backbone.encode(images)
    prompts = [ragged_prompts()[n] for n in (0, 2)]
    batch = PromptBatch.collate(prompts, spec.input_size, spec.mask_size)
    prompted = backbone.decode(embedding, batch).logits
    if token is None:
        return prompted
    empty = PromptBatch.collate([PixelPrompts()] * 2, spec.input_size, spec.mask_size)
    named = backbone.decode(embedding, empty, concept=token.expand(2, -1)).logits
    return torch.cat([prompted, named])


def state_of(backbone: Backbone) -> dict[str, Tensor]:
    """Copies of all weights by name."""
    return {name: tensor.clone() for name, tensor in backbone.module.state_dict().items()}


def unchanged(backbone: Backbone, before: dict[str, Tensor]) -> bool:
    """True if names and values are those of `before`."""
    now = backbone.module.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[k], before[k]) for k in before)


def labelled_disc(seed: int, side: int = 48, slices: int = 6) -> tuple[Volume, Volume]:
    """A noisy image of a bright disc on all but the outer slices, and its labels."""
    rng = np.random.default_rng(seed)
    row, column = rng.uniform(0.4, 0.6, 2) * side
    radius = rng.uniform(0.16, 0.24) * side
    path = dict.fromkeys(range(1, slices - 1), (row, column, radius))
    mask = discs((side, side, slices), 2, path)
    image = np.clip(mask * 90 + rng.normal(60, 6, mask.shape), 1, 255).astype(np.int16)
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    return Volume(image, affine, "MR"), Volume(mask.astype(np.uint8), affine)


def cohort(count: int = 3) -> tuple[list[Volume], list[Volume]]:
    """Images and labels."""
    pairs = [labelled_disc(seed) for seed in range(count)]
    return [image for image, _ in pairs], [labels for _, labels in pairs]


def disc_cases(count: int = 2) -> list[OrganCase]:
    """The same as training takes them."""
    pairs = [labelled_disc(seed) for seed in range(count)]
    return [
        organ_case(f"case{n}", image.data, labels.data, [1], 2, image.spacing, (0.0, 200.0))
        for n, (image, labels) in enumerate(pairs)
    ]


def write_cohort(folder: Path, count: int = 3) -> tuple[Path, Path]:
    """The same as NIfTI files in folders of images and labels."""
    from promptseg.volume import write

    for n in range(count):
        image, labels = labelled_disc(n)
        for name, volume in (("images", image), ("labels", labels)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            write(volume, folder / name / f"case{n}.nii.gz")
    return folder / "images", folder / "labels"
