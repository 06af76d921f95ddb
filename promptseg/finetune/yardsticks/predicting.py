"""Labels of a whole case from a plain network."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from promptseg.finetune.organ_case import OrganCase
from promptseg.finetune.yardsticks.networks import Body
from promptseg.finetune.yardsticks.sampling import Block, grey, shrunk
from promptseg.volume.slicing import Frame, Region

SLICES = 8


@torch.inference_mode()
def slice_labels(body: Body, case: OrganCase, size: int) -> NDArray[np.uint8]:
    """(N, H, W) labels from a 2D network, slice by slice; 0 around what is not black.

    Args:
        body: The network.
        case: Its image.
        size: Side of the network's input in pixels.
    """
    body.eval()
    data = grey(case)
    x0, y0, x1, y1 = (int(edge) for edge in case.body)
    spacing = (case.thickness, *case.spacing)
    frame = Frame(0, Region((y0, y1), (x0, x1)), data.shape, spacing, size)
    labels = np.zeros(data.shape, np.uint8)
    for start in range(0, len(data), SLICES):
        indices = list(range(start, min(start + SLICES, len(data))))
        logits = body(frame.extract(data, indices, "2.5d")[:, 1:2])
        whole = torch.stack([frame.restore(channel) for channel in logits.unbind(1)], 1)
        labels[start : start + len(indices), y0:y1, x0:x1] = whole.argmax(1).numpy()
    return labels


@torch.inference_mode()
def block_labels(
    body: Body, case: OrganCase, block: Block, overlap: float, shrink: int = 1
) -> NDArray[np.uint8]:
    """(N, H, W) labels from a 3D network, by MONAI's sliding window.

    Args:
        body: The network.
        case: Its image.
        block: Sides of the window in voxels.
        overlap: Of neighbouring windows, as a share of a side.
        shrink: Voxels of every side that are one for the network.
    """
    from monai.inferers import sliding_window_inference

    body.eval()
    image = torch.from_numpy(grey(shrunk(case, shrink)))[None, None]
    logits: Tensor = sliding_window_inference(image, block, 1, body, overlap)  # type: ignore[assignment]
    if shrink > 1:
        logits = functional.interpolate(logits, scale_factor=float(shrink), mode="trilinear")
    n, h, w = case.image.shape
    return logits[0, :, :n, :h, :w].argmax(0).numpy().astype(np.uint8)
