"""Samples, a tiny model file, a cohort and an adapter, for tests of active learning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from adapter_kit import random_adapter, write_cohort
from support import tiny_network

from promptseg.active.samples import Sample
from promptseg.adapters import write_adapter
from promptseg.backbones import load_backbone
from promptseg.backbones.default import save_default


def sample(name: str, similarity: float | None = None, **known: float) -> Sample:
    """A case with a feature that points along one axis."""
    values = {"least_confidence": 1.0, "margin": 1.0, "entropy": 1.0, **known}
    feature = None if similarity is None else np.eye(256)[0] * similarity**0.5
    return Sample(
        name,
        None,
        feature,
        values["least_confidence"],
        values["margin"],
        values["entropy"],
        similarity,
        values.get("uncertainty"),
    )


def write_place(folder: Path, cases: int = 4) -> Path:
    """A model file `tiny.safetensors`, `images`, `labels`, and the adapter folder `source`."""
    save_default(tiny_network(), folder / "tiny.safetensors", {})
    write_cohort(folder, cases)
    backbone = load_backbone(str(folder / "tiny.safetensors"))
    adapter, _ = random_adapter(backbone, "source", strength=0.02)
    info = replace(adapter.info, labels={1: "disc"})
    write_adapter(replace(adapter, info=info, tokens={1: adapter.tokens[1]}), folder / "source")
    return folder
