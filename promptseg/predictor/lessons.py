"""Accepted cases of a sitting, and the adapter that is fitted to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath

import numpy as np

from promptseg.adapters import Adapter, AdapterInfo
from promptseg.backbones.base import Backbone, half_size
from promptseg.errors import VolumeError
from promptseg.inference.encoder import EmbeddingCache, SliceEncoder
from promptseg.predictor.automatic import body_region
from promptseg.predictor.engine import Engine
from promptseg.predictor.examples import Example, make_example
from promptseg.predictor.learning import Effort, learn
from promptseg.predictor.runtime import Runtime
from promptseg.predictor.seen import Seen
from promptseg.volume import Volume, anatomical_axes
from promptseg.volume.intensity import Window, normalise
from promptseg.volume.orientation import CANONICAL

LEARNED = "learned"
DIRECTIONS = ("sagittal", "coronal", "axial")
_PASSING_BYTES = 64 << 20


def take_lesson(
    runtime: Runtime,
    volume: Volume,
    window: Window,
    axis: int,
    known: np.ndarray,
    names: Mapping[int, str],
    effort: Effort | None = None,
) -> Adapter:
    """Add an accepted case to the lessons, learn from all of them, and use the result.

    Args:
        runtime: Its base learns; an adapter that is active has no part in it.
        volume: The case.
        window: Grey values shown to the network.
        axis: Slice axis of the file.
        known: (I, J, K) accepted labels.
        names: By label.
        effort: How long to learn.

    Raises:
        VolumeError: The labels are not on the volume's grid.
        PromptError: They hold nothing to learn from.
        AdapterError: The network takes no token that names a target.
    """
    if known.shape != volume.shape:
        raise VolumeError(f"the mask has shape {known.shape}, the volume {volume.shape}")
    with runtime.adapters.using(None):
        backbones = sizes_of(runtime.backbone)
        example = _example(runtime, backbones, Seen.of(volume), window, axis, known)
        runtime.lessons.add(volume.sha256, example, names)
        examples = runtime.lessons.examples
        learned = learn(backbones, examples, Effort() if effort is None else effort)
    labels = {label: runtime.lessons.names[label] for label in learned.tokens}
    info = _info(runtime, volume, window, axis, labels)
    info = replace(
        info, steps=learned.steps, training_cases=tuple(example.name for example in examples)
    )
    adapter = Adapter(LEARNED, info, {}, learned.tokens, learned.deltas)
    if LEARNED in runtime.adapters.names:
        runtime.adapters.remove(LEARNED)
    runtime.adapters.add(adapter)
    runtime.adapters.use(LEARNED)
    return adapter


def sizes_of(backbone: Backbone) -> list[Backbone]:
    """The network at half its input, where it takes any size, and as it is."""
    half = half_size(backbone)
    return [backbone] if half is None else [half, backbone]


def _example(
    runtime: Runtime,
    backbones: list[Backbone],
    seen: Seen,
    window: Window,
    axis: int,
    known: np.ndarray,
) -> Example:
    volume, along = seen.volume, seen.orientation.axis(axis)
    data = normalise(volume.data, window)
    signature = f"{volume.sha256} {window}"
    cache = runtime.cache or EmbeddingCache(_PASSING_BYTES)
    encoders = [
        SliceEncoder(
            backbone,
            data,
            signature,
            runtime.device,
            runtime.precision,
            runtime.batch_size,
            cache,
            crop_factor=runtime.backbone.spec.crop_factor,
        )
        for backbone in backbones
    ]
    body = body_region(Engine(encoders[-1], along, volume.spacing))
    name = volume.sha256[:12] if volume.source is None else PurePath(str(volume.source)).name
    labels, spacing = seen.orientation.apply(known), [float(s) for s in volume.spacing]
    return make_example(name, encoders, along, spacing, labels, body)


def _info(
    runtime: Runtime, volume: Volume, window: Window, axis: int, labels: Mapping[int, str]
) -> AdapterInfo:
    spec = runtime.backbone.spec
    # By its direction in the body: the next case may be stored the other way round.
    direction = DIRECTIONS[anatomical_axes(volume.affine).index(axis)]
    return AdapterInfo(
        organ=" and ".join(labels.values()),
        labels=labels,
        backbone=spec.name,
        family=spec.family,
        base_sha256=runtime.adapters.base_sha256,
        method="none",
        rank=0,
        targets=(),
        modality=volume.modality,
        window=window.name,
        axis=direction,
        orientation=CANONICAL,
        input_size=spec.input_size,
        licence="made from the masks accepted in one sitting: their terms hold",
    )
