"""Reference vectors of a source site: all that leaves it, and no image among them.

K-means over the features of its slices (6-3, 6-4); a slice elsewhere is as unlike the source as its
feature is far from the nearest of them (6-5).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy.cluster.vq import kmeans2

from promptseg.active.features import LENGTH
from promptseg.active.looking import features_of
from promptseg.active.samples import Floats, Sample
from promptseg.errors import FormatError
from promptseg.io.atomic import atomic_path

K = 10
RESTARTS, ITERATIONS = 8, 100
FORMAT = "promptseg-reference-1"
MAX_BYTES = 16 << 20
logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Reference:
    """K vectors that stand for a source site.

    Args:
        vectors: (K, 256).
        model: What the features were made with: digest of the base and of the adapter.
        slices: How many slices they are the means of.
        cases: How many cases.
    """

    vectors: Floats
    model: str
    slices: int
    cases: int

    def similarity(self, feature: Floats) -> float:
        """Squared Euclidean distance to the nearest vector (6-5): small is alike."""
        return float(((self.vectors - feature) ** 2).sum(1).min())

    def judged(self, samples: Sequence[Sample]) -> list[Sample]:
        """The same samples with their similarity."""
        return [
            one if one.feature is None else replace(one, similarity=self.similarity(one.feature))
            for one in samples
        ]


def make_reference(samples: Sequence[Sample], model: str, k: int = K, seed: int = 0) -> Reference:
    """Cluster the features of a source site's slices.

    Args:
        samples: Slices.
        model: What they were looked at with.
        k: Number of vectors; fewer where there are fewer slices with a prediction.
        seed: Of the clustering.

    Raises:
        FormatError: No slice has a feature, or k is below 1.
    """
    features = features_of(samples)
    if k < 1:
        raise FormatError(f"k is {k}: give at least 1 reference vector")
    if not len(features):
        raise FormatError("nothing was predicted on any slice: there is no feature to refer to")
    if k > len(features) // 2:
        logger.warning(
            "%d reference vectors of %d slices: some stand for a single slice; give more cases or "
            "a smaller --k where that says too much", min(k, len(features)), len(features),
        )  # fmt: skip
    vectors = clustered(features, min(k, len(features)), seed)
    return Reference(vectors, model, len(features), len({one.case for one in samples}))


def clustered(features: Floats, k: int, seed: int) -> Floats:
    """(K, D) means of the best of several K-means runs.

    Features are tiny numbers: they are scaled to a mean square of one meanwhile, which changes no
    cluster.
    """
    scale = float(np.sqrt((features**2).mean())) or 1.0
    scaled = features / scale
    k = min(k, len(np.unique(scaled, axis=0)))
    best: tuple[float, Floats] | None = None
    for restart in range(RESTARTS):
        rng = np.random.default_rng((seed, restart))
        centres, labels = kmeans2(scaled, k, ITERATIONS, minit="++", rng=rng, missing="warn")
        cost = float(((scaled - centres[labels]) ** 2).sum())
        if best is None or cost < best[0]:
            best = cost, centres[np.unique(labels)]
    if best is None:
        raise FormatError("no clustering was made")
    return best[1] * scale


def save_reference(reference: Reference, path: Path) -> None:
    """Write a safetensors file.

    Raises:
        FormatError: It cannot be written.
    """
    about = {
        "format": FORMAT,
        "model": reference.model,
        "slices": str(reference.slices),
        "cases": str(reference.cases),
    }
    try:
        with atomic_path(path) as temporary:
            save_file({"vectors": torch.from_numpy(reference.vectors)}, temporary, about)
    except OSError as error:
        raise FormatError(f"{path}: cannot be written: {error.strerror or error}") from error


def load_reference(path: Path, model: str) -> Reference:
    """Read the reference vectors of another site.

    Args:
        path: File of `save_reference`.
        model: What the slices here are looked at with.

    Raises:
        FormatError: It is missing, damaged, no such file, or made with another model.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FormatError(f"{path} has {path.stat().st_size} bytes: no file of references")
        with safe_open(path, "pt") as content:
            about = content.metadata() or {}
            vectors = content.get_tensor("vectors").double().numpy()
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file") from None
    except (SafetensorError, OSError, KeyError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path} is no file of reference vectors: {error}") from error
    if about.get("format") != FORMAT or vectors.ndim != 2 or vectors.shape[1] != LENGTH:
        raise FormatError(
            f"{path} is no file of reference vectors: shape {vectors.shape}, format "
            f"{about.get('format')!r}; make it with `promptseg select --make-reference`"
        )
    if not len(vectors) or not np.isfinite(vectors).all():
        raise FormatError(f"{path}: {len(vectors)} vectors, not all finite: make it again")
    if about.get("model") != model:
        raise FormatError(
            f"{path} was made with another model or adapter ({about.get('model', '')[:16]}) than "
            f"is used here ({model[:16]}): use the same on both sites"
        )
    return Reference(vectors, model, int(about["slices"]), int(about["cases"]))
