"""What a run would do: parts that learn, memory, time, size; measured on a few steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from promptseg.finetune.data import Split
from promptseg.finetune.trainer import Trainer
from promptseg.finetune.views import ViewMaker

TIMED = 2


@dataclass(frozen=True)
class Plan:
    """What would be trained.

    Args:
        organ: In words.
        labels: Name by label.
        backbone: Name.
        training_cases: How many.
        validation_cases: How many.
        trainable: Numbers that learn.
        total: Numbers of the network.
        lora_bytes: Size of adapter_model.safetensors.
        heads_bytes: Size of heads.safetensors.
        memory_bytes: Of weights, gradients, optimiser and activations of one step.
        seconds_per_step: Measured, the mean over the whole run.
        steps: To be done; of a timed run, those that fit.
        minutes: They take.
        device: Where.
        precision: `fp32` or `bf16`.
        objective: What is minimised.
        annotation: `labels` or `scribbles`.
        unlabelled_cases: How many images without labels.
        helpers: Numbers that learn beside and are dropped afterwards.
        notes: What was made of the files, each a sentence.
    """

    organ: str
    labels: dict[int, str]
    backbone: str
    training_cases: int
    validation_cases: int
    trainable: int
    total: int
    lora_bytes: int
    heads_bytes: int
    memory_bytes: int
    seconds_per_step: float
    steps: int
    minutes: float
    device: str
    precision: str
    objective: str = "supervised"
    annotation: str = "labels"
    unlabelled_cases: int = 0
    helpers: int = 0
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        named = ", ".join(f"{label} {name}" for label, name in self.labels.items())
        return "\n".join(
            [
                f"organ        {self.organ} ({named})",
                f"backbone     {self.backbone} on {self.device} in {self.precision}",
                f"objective    {self.objective}, from {self.annotation}"
                + (f" and {self.unlabelled_cases} unlabelled" if self.unlabelled_cases else ""),
                f"cases        {self.training_cases} to train, {self.validation_cases} to validate",
                f"trainable    {self.trainable:,} of {self.total:,} parameters "
                f"({100 * self.trainable / self.total:.1f} %)"
                + (f", and {self.helpers:,} while training" if self.helpers else ""),
                f"memory       {self.memory_bytes / 1e6:.0f} MB",
                f"steps        {self.steps} of {self.seconds_per_step:.2f} s, "
                f"{self.minutes:.1f} min",
                f"adapter      {self.lora_bytes / 1e6:.2f} MB LoRA, "
                f"{self.heads_bytes / 1e6:.2f} MB heads",
                *(f"note         {text}" for text in self.notes),
            ]
        )


def make_plan(trainer: Trainer, split: Split) -> Plan:
    """Run a few steps and describe the whole; the trainer is spent afterwards."""
    learner, config = trainer.learner, trainer.config
    module = learner.backbone.module
    whole, seen = timed(trainer, trainer.views)
    small = whole if trainer.small_views is None else timed(trainer, trainer.small_views)[0]
    half = config.half
    if config.minutes is None:
        steps = config.steps or 1
        seconds = steps * (half * small + (1 - half) * whole)
    else:
        seconds = config.minutes * 60
        steps = max(1, round(seconds * (half / small + (1 - half) / whole)))
    learning = sum(p.numel() for p in trainer.parameters.values())
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    projection = learner.projection
    named = learner.tokens.numel() + (0 if projection is None else projection.numel())
    return Plan(
        organ=config.organ,
        labels=split.labels,
        backbone=learner.backbone.spec.name,
        training_cases=len(split.training),
        validation_cases=len(split.validation),
        trainable=learner.count,
        total=sum(p.numel() for p in module.parameters()) + named,
        lora_bytes=4 * sum(p.numel() for p in learner.lora.values()),
        heads_bytes=2 * sum(p.numel() for p in learner.heads.values()) + 4 * named,
        memory_bytes=weights + 4 * 4 * learning + seen,
        seconds_per_step=seconds / steps,
        steps=steps,
        minutes=seconds / 60,
        device=str(trainer.processes.device),
        precision=trainer.network.precision,
        objective=config.objective,
        annotation=split.annotation,
        unlabelled_cases=len(split.unlabelled),
        helpers=learning - learner.count,
        notes=tuple(split.notes),
    )


def timed(trainer: Trainer, views: ViewMaker) -> tuple[float, int]:
    """Seconds of a step on these views, and the bytes that one keeps for going back."""
    batch = trainer.config.batch
    with counted_activations() as seen:
        trainer.update([views[n] for n in range(batch)])
    began = time.perf_counter()
    for step in range(1, TIMED + 1):
        trainer.update([views[n] for n in range(step * batch, (step + 1) * batch)])
    return (time.perf_counter() - began) / TIMED, seen[0]


@contextmanager
def counted_activations() -> Iterator[list[int]]:
    """Bytes that autograd keeps for going back, counted while the block runs."""
    seen, storages = [0], set()

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in storages:
            storages.add(storage.data_ptr())
            seen[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield seen
