"""The learned 3D corrector: a mask's probability after clicks, from image, mask and clicks."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from promptseg.errors import PromptError
from promptseg.inference.device import Precision, autocast
from promptseg.refine.corrector_inputs import (
    ClickDistances,
    Patch,
    choose_patch,
    corrector_inputs,
    distance_to,
    logits_of,
    standardised,
)
from promptseg.refine.corrector_network import ClickCorrector
from promptseg.weights.described import Described
from promptseg.weights.registry import sha256_file
from promptseg.weights.shipped import shipped_or

NAME = "corrector"
FILE = Described("promptseg-corrector", 1, "corrector")
NOWHERE = np.zeros((0, 3), np.int64)
AROUND = 8.0
ELSEWHERE = 0.15
UNASKED = 0.5

Click = tuple[Sequence[int], bool]


class Corrector:
    """Corrects a mask in 3D from clicks, of any target and any network.

    It looks at one view of the mask and all clicks, at most 64 elements long, and says what to add
    to the logits of the mask: once for every click, with those before it. An answer counts fully
    around its newest click and by `ELSEWHERE` far from it, so that one click that is taken wrongly
    spoils little; and `UNASKED` of what the network would change without any click is left out, so
    that the first click does not spoil a good mask. Both were chosen on left atria 17-31. Clicks
    are no hard constraints here: cut afterwards with `graph_cut_refine`.

    Args:
        network: What corrects.
        sha256: Digest of its file, None if it has none.
    """

    def __init__(self, network: ClickCorrector, sha256: str | None = None) -> None:
        self.network, self.sha256 = network.eval(), sha256

    def to(self, device: torch.device) -> Corrector:
        """The same on a device."""
        return Corrector(copy.deepcopy(self.network).to(device), self.sha256)

    def corrected(
        self,
        probability: NDArray[np.floating],
        image: NDArray[np.floating],
        clicks: Sequence[Click],
        spacing: Sequence[float],
        known: tuple[NDArray[np.integer], NDArray[np.integer]] = (NOWHERE, NOWHERE),
        precision: Precision = "fp32",
    ) -> NDArray[np.float32]:
        """Foreground probability after clicks.

        Args:
            probability: (I, J, K) before, in [0, 1].
            image: (I, J, K) grey values.
            clicks: In their order, each a voxel and True on the target, False beside it.
            spacing: (3,) mm.
            known: (N, 3) whole voxels of the target and (M, 3) beside it, known before any click.
            precision: `fp32`, `bf16` or `fp16`.

        Returns:
            (I, J, K) float32; unchanged far from mask and clicks, and without a click.

        Raises:
            PromptError: If image and probability have different shapes.
        """
        if image.shape != probability.shape:
            raise PromptError(
                f"the image has shape {image.shape}, the probability {probability.shape}"
            )
        after = np.array(probability, np.float32)
        if not clicks:
            return after
        places = np.concatenate([*known, [voxel for voxel, _ in clicks]]).astype(np.int64)
        patch = choose_patch(after > 0.5, places, spacing, self.network.multiple)
        prior = logits_of(patch.view(after))
        answer = self._folded(patch, prior, image, clicks, known, precision)
        part = after[patch.region]
        logits = logits_of(torch.from_numpy(part)).numpy() + patch.restore(answer - prior)
        after[patch.region] = 1 / (1 + np.exp(-logits))
        return after

    def _folded(
        self,
        patch: Patch,
        prior: Tensor,
        image: NDArray[np.floating],
        clicks: Sequence[Click],
        known: tuple[NDArray[np.integer], NDArray[np.integer]],
        precision: Precision,
    ) -> Tensor:
        """(D, H, W) logits in the view after one click after the other."""
        grey = standardised(patch.view(image))
        told = [ClickDistances.of(grey, patch.seeds(voxels)) for voxels in known]
        unasked = UNASKED * self._change(corrector_inputs(prior, *told), precision)
        answer = prior
        for voxel, positive in clicks:
            seeds = patch.seeds(np.array([voxel]))
            side = 0 if positive else 1
            told[side] = told[side].and_at(seeds)
            after = prior + self._change(corrector_inputs(prior, *told), precision) - unasked
            near = np.exp(-((distance_to(seeds) / AROUND) ** 2) / 2)
            answer = answer.lerp(after, torch.from_numpy(ELSEWHERE + (1 - ELSEWHERE) * near))
        return answer

    def _change(self, inputs: Tensor, precision: Precision) -> Tensor:
        device = next(self.network.parameters()).device
        with torch.inference_mode(), autocast(device, precision):
            return self.network(inputs[None].to(device))[0].float().cpu()


def save_corrector(
    network: ClickCorrector, path: Path, about: Mapping[str, str] | None = None
) -> None:
    """Write one safetensors file in half precision that carries its own configuration.

    Args:
        network: What to write.
        path: File to write.
        about: Further metadata.
    """
    FILE.save(network, network.config(), path, about or {})


def load_corrector(path: Path | None = None) -> Corrector:
    """Read a file of `save_corrector`; the one that ships if None, once a process.

    Raises:
        WeightsError: If the file is missing, corrupt or holds something else.
    """
    return shipped_or(path, NAME, _read)


def _read(path: Path) -> Corrector:
    return Corrector(FILE.load(path, ClickCorrector), sha256_file(path))
