"""A tower with random weights, and adapters that understand words, for tests."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from adapter_kit import config, info_of

from promptseg.adapters import Adapter
from promptseg.backbones.base import Backbone
from promptseg.finetune.lora import make_learner
from promptseg.finetune.words import LabelWords, label_words
from promptseg.text import selecting
from promptseg.text import tower as towers
from promptseg.text.tower import TextTower, Tokens, TowerConfig, build_tower
from promptseg.text.vocabulary import vocabulary

WIDTH = 16


@functools.lru_cache(maxsize=2)
def tiny_tower(threshold: float = 0.9) -> TextTower:
    """Random weights; every concept lies where its own name does."""
    chosen = TowerConfig(width=WIDTH, layers=1, heads=2, length=24, outputs=WIDTH)
    tokens = Tokens()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build_tower(chosen, tokens.count)
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    tower = TextTower(module, tokens, chosen, {}, threshold)
    names = list(vocabulary().concepts)
    tower.concepts = dict(zip(names, tower.embed(names), strict=True))
    return tower


def use_tiny_tower(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The tiny tower in place of the one that ships, and no adapters but those of a folder."""
    monkeypatch.setattr(towers, "load_tower", lambda path=None: tiny_tower())
    monkeypatch.setattr(selecting, "load_tower", lambda path=None: tiny_tower())
    monkeypatch.setattr(selecting, "list_adapters", dict)
    monkeypatch.setenv("PROMPTSEG_ADAPTERS", str(folder))


def words_for(labels: Mapping[int, str]) -> LabelWords:
    """Wordings of labels through the tiny tower; `load_tower` must be patched to give it."""
    found = label_words(labels)
    assert found is not None
    return found


def worded_adapter(
    backbone: Backbone,
    labels: Mapping[int, str],
    name: str = "heart",
    present: float = 20.0,
    words: LabelWords | None = None,
    **further: object,
) -> Adapter:
    """An adapter with random values whose targets are judged present, or with -20 absent.

    The backbone must be without adapters, and is as before afterwards.
    """
    chosen = config(seed=3, organ=name)
    about = {"labels": dict(labels), "organ": name, "axis": "axial"}
    if words is not None:
        about |= {"label_words": dict(zip(labels, words.names, strict=True)),
                  "text_sha256": words.tower}  # fmt: skip
    info = info_of(backbone, chosen, True, **{**about, **further})
    learner = make_learner(backbone, chosen, len(labels), words)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in learner.parameters.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
        learner.tokens.add_(torch.randn(learner.tokens.shape, generator=generator))
    adapter = learner.adapter(name, info)
    learner.release()
    bias = "mask_decoder.presence.2.bias"
    return replace(adapter, deltas={**adapter.deltas, bias: torch.tensor([present])})


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Of two vectors."""
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
