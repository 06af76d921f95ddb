"""How much a mask looks like some words, by an image-text model.

Each mask is shown twice, as it lies in its surroundings and alone on black (Liang et al., CVPR
2023, on why CLIP must be shown both), and each name is said in several sentences whose vectors
are averaged (Radford et al., ICML 2021, section 3.1.4).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from promptseg.errors import PromptError
from promptseg.inference.crop import squared
from promptseg.predictor.engine import Engine
from promptseg.volume.slicing import Frame, Region

CONTEXT = 1.4
TEMPLATES = {
    None: ("{}", "a medical image of the {}", "a radiology image showing the {}",
           "a cross-section through the {}"),
    "CT": ("{}", "a CT scan of the {}", "an axial CT image showing the {}",
           "computed tomography of the {}"),
    "MR": ("{}", "an MRI of the {}", "an MR image showing the {}",
           "magnetic resonance imaging of the {}"),
}  # fmt: skip
CONTRASTS = ("background", "surrounding tissue", "empty space")


class ImageText(Protocol):
    """What a scorer needs of an image-text model; `ClipModel` is one."""

    @property
    def image_size(self) -> int: ...
    @property
    def scale(self) -> float: ...
    def encode_images(self, images: Sequence[np.ndarray]) -> np.ndarray: ...
    def encode_texts(self, texts: Sequence[str]) -> np.ndarray: ...


class Scorer:
    """Scores pictures against words; no picture and no text is encoded twice.

    Args:
        model: Encodes pictures and texts as unit vectors, in batches.
        modality: `CT`, `MR` or None; decides the sentences.
        held: Vectors kept of each kind, least recently used first out.
    """

    def __init__(self, model: ImageText, modality: str | None = None, held: int = 20_000) -> None:
        self.model = model
        self.templates = TEMPLATES.get(modality, TEMPLATES[None])
        self.held = held
        self._images: OrderedDict[str, np.ndarray] = OrderedDict()
        self._texts: OrderedDict[str, np.ndarray] = OrderedDict()

    def images(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """(N, D) unit vectors of N grey pictures."""
        keys = [_digest(picture) for picture in pictures]
        return self._looked_up(self._images, keys, pictures, self.model.encode_images)

    def words(self, names: Sequence[str]) -> np.ndarray:
        """(D,) unit vector of one thing by its names, each in every sentence."""
        texts = [sentence.format(name) for name in names for sentence in self.templates]
        vectors = self._looked_up(self._texts, texts, texts, self.model.encode_texts)
        return unit(vectors.mean(0))

    def score(
        self, pictures: np.ndarray, names: Sequence[str], contrasts: Sequence[str] = CONTRASTS
    ) -> np.ndarray:
        """Probability of each thing shown to be what the names mean and none of the contrasts.

        The softmax of cosines to the names and to each contrast, with the scale that the model
        learned. It is as good as the model is on such pictures: calibrate the threshold on your
        own data.

        Args:
            pictures: (N, V, S, S) grey values in [0, 1], V pictures of each of N things.
            names: Of one thing.
            contrasts: Other things that might be shown.

        Returns:
            (N,) float64 in [0, 1].
        """
        count, views = pictures.shape[:2]
        if not count:
            return np.zeros(0)
        taken = {name.strip().casefold() for name in names}
        others = [[other] for other in contrasts if other.strip().casefold() not in taken]
        if not others:
            raise PromptError("nothing to tell the words from: give contrasts of other meaning")
        vectors = self.images(list(pictures.reshape(-1, *pictures.shape[2:])))
        shown = unit(vectors.reshape(count, views, -1).mean(1))
        said = np.stack([self.words(one) for one in ([*names], *others)])
        logits = self.model.scale * (shown @ said.T).astype(np.float64)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        return weights[:, 0] / weights.sum(1)

    def _looked_up(
        self,
        store: OrderedDict[str, np.ndarray],
        keys: Sequence[str],
        items: Sequence[Any],
        encode: Callable[[Sequence[Any]], np.ndarray],
    ) -> np.ndarray:
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in store}
        if missing:
            vectors = encode(list(missing.values()))
            store.update(zip(missing, vectors, strict=True))
        for key in dict.fromkeys(keys):
            store.move_to_end(key)
        found = np.stack([store[key] for key in keys])
        while len(store) > self.held:
            store.popitem(last=False)
        return found


def mask_pictures(engine: Engine, index: int, mask: np.ndarray, size: int) -> np.ndarray:
    """A mask in its surroundings, and alone on black.

    Args:
        engine: Of the volume.
        index: Slice.
        mask: (H, W) bool with at least one voxel.
        size: Side of the pictures in pixels.

    Returns:
        (2, size, size) float32 in [0, 1], square in millimetres.
    """
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    region = Region((rows[0], rows[-1] + 1), (cols[0], cols[-1] + 1))
    view = squared(region, engine.axis, engine.spacing, CONTEXT)
    spacing = engine.spacing[0], engine.spacing[1], engine.spacing[2]
    frame = Frame(engine.axis, view, engine.shape, spacing, size)
    seen = frame.extract(engine.encoder.data, [index])[0, 0].numpy()
    inside = frame.project(mask.astype(np.float32), size).numpy()
    return np.stack([seen, seen * inside])


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors along the last axis at length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _digest(picture: np.ndarray) -> str:
    pixels = np.ascontiguousarray(picture, np.float32)
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
