"""Speed by comparison: the same boxes on the same slices with the same weights.

Contenders take turns in one run on one machine, so that the ratios mean something where the
times do not.
"""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from promptseg.backbones.base import Backbone, Decoded, Embedding, PromptBatch
from promptseg.embeddings import DTYPES, autocast
from promptseg.intensity import choose_window, normalise
from promptseg.prompts import Box, PromptSet
from promptseg.segmenter import Segmenter
from promptseg.volume import Volume

Run = Callable[[Volume, PromptSet], np.ndarray]
T = TypeVar("T")


@dataclass(frozen=True)
class Result:
    """One contender.

    Args:
        name: What ran.
        seconds: Best time of the rounds for the whole volume.
        rounds: Every time.
        peak_mb: Peak memory of the process so far, MiB (of the GPU where one is used).
        dice: Agreement of its masks with those of the first contender.
    """

    name: str
    seconds: float
    rounds: list[float]
    peak_mb: float
    dice: float


def ball_volume(shape: tuple[int, int, int], seed: int = 0) -> tuple[Volume, np.ndarray]:
    """Noise with a bright ball in the middle slices: image and mask, for timing only."""
    rng = np.random.default_rng(seed)
    grid = np.indices(shape, dtype=np.float32)
    centre = np.array(shape, dtype=np.float32) / 2
    radius = np.array([shape[0] / 6, shape[1] / 6, shape[2] / 4], dtype=np.float32)
    distance = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radius, strict=True))
    mask = np.asarray(distance <= 1)
    data = (mask * 120 + rng.normal(60, 15, shape)).clip(0, 255).astype(np.uint8)
    return Volume(data, np.diag([0.8, 0.8, 3.0, 1.0]), "MR"), mask


def slice_boxes(mask: np.ndarray, everywhere: bool) -> PromptSet:
    """One tight box a slice; `everywhere` repeats the nearest one beyond the mask."""
    filled = np.flatnonzero(mask.any((0, 1)))
    indices = range(mask.shape[2]) if everywhere else [int(k) for k in filled]
    boxes = []
    for k in indices:
        inside = np.argwhere(mask[:, :, int(np.clip(k, filled[0], filled[-1]))])
        (i0, j0), (i1, j1) = inside.min(0).tolist(), (inside.max(0) + 1).tolist()
        boxes.append(Box((i0, j0, k), (i1, j1, k + 1)))
    return PromptSet(boxes)


def ours(segmenter: Segmenter) -> Run:
    """promptseg: batched, mixed precision, nothing kept from earlier rounds."""

    def run(volume: Volume, prompts: PromptSet) -> np.ndarray:
        return segmenter.segment(volume, prompts, axis=2, propagate=False).data > 0

    return run


def sam_predictor(sam: torch.nn.Module) -> Run:
    """segment_anything's SamPredictor slice by slice, as its README shows."""
    from segment_anything import SamPredictor

    predictor = SamPredictor(sam)

    def run(volume: Volume, prompts: PromptSet) -> np.ndarray:
        grey = to_bytes(volume)
        masks = np.zeros(volume.shape, bool)
        for box in prompts:
            check_is_box(box)
            k = int(box.lo[2])  # type: ignore[union-attr]
            predictor.set_image(np.repeat(grey[:, :, k, None], 3, -1))
            found, _, _ = predictor.predict(box=corners(box), multimask_output=False)
            masks[:, :, k] = found[0]
        return masks

    return run


def transformers_sam(model: torch.nn.Module) -> Run:
    """transformers' SamModel and SamProcessor slice by slice, as its documentation shows."""
    from transformers import SamImageProcessor, SamProcessor

    processor = SamProcessor(SamImageProcessor())

    @torch.no_grad()
    def run(volume: Volume, prompts: PromptSet) -> np.ndarray:
        grey = to_bytes(volume)
        masks = np.zeros(volume.shape, bool)
        for box in prompts:
            check_is_box(box)
            k = int(box.lo[2])  # type: ignore[union-attr]
            image = np.repeat(grey[:, :, k, None], 3, -1)
            boxes = [[corners(box).tolist()]]
            inputs = processor(images=image, input_boxes=boxes, return_tensors="pt")
            found = model(**inputs.to(model.device), multimask_output=False)
            full = processor.image_processor.post_process_masks(
                found.pred_masks.cpu(), inputs["original_sizes"], inputs["reshaped_input_sizes"]
            )
            masks[:, :, k] = np.asarray(full[0])[0, 0]
        return masks

    return run


def check_is_box(prompt: object) -> None:
    """Raise TypeError for anything but a box."""
    if not isinstance(prompt, Box):
        raise TypeError(f"the benchmark takes boxes, found {type(prompt).__name__}")


def corners(box: Any) -> np.ndarray:
    """(4,) x0, y0, x1, y1 of a box on a slice, pixel centres at whole numbers as SAM has them."""
    return np.array([box.lo[1], box.lo[0], box.hi[1], box.hi[0]], dtype=np.float32) - 0.5


def to_bytes(volume: Volume) -> np.ndarray:
    """(I, J, K) uint8 of the volume through the same window as promptseg uses."""
    return (normalise(volume.data, choose_window(volume)) * 255).round().astype(np.uint8)


def compare(
    contenders: dict[str, Run], volume: Volume, prompts: PromptSet, rounds: int = 1
) -> list[Result]:
    """Let contenders take turns `rounds` times on the same volume and prompts."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    masks: dict[str, np.ndarray] = {}
    peaks: dict[str, float] = {}
    for _ in range(rounds):
        for name, run in contenders.items():
            gc.collect()
            began = perf_counter()
            masks[name] = run(volume, prompts)
            times[name].append(perf_counter() - began)
            peaks[name] = peak_memory()
    first = next(iter(masks.values()))
    return [
        Result(name, min(spent), spent, peaks[name], overlap(masks[name], first))
        for name, spent in times.items()
    ]


def at_equal_precision(
    segmenter: Segmenter, rivals: dict[str, Run], volume: Volume, prompts: PromptSet
) -> dict[str, float]:
    """Dice of our masks in float32 with every rival's, which are in float32.

    Random weights give logits near zero, whose sign bfloat16 rounds off: there the agreement of
    the timed run, in mixed precision, says little of whether both compute the same.
    """
    exact = ours(Segmenter(segmenter.backbone, str(segmenter.device), "fp32", 1))
    masks = exact(volume, prompts)
    return {name: overlap(masks, run(volume, prompts)) for name, run in rivals.items()}


@dataclass(frozen=True)
class Rounding:
    """What mixed precision changes in the logits, wherever their threshold lies.

    Args:
        correlation: Of the logits in mixed precision with those in float32.
        dice: Of both where the float32 logits are cut one standard deviation above their mean,
            away from the bulk: random weights put that near 0, where any rounding flips a sign.
    """

    correlation: float
    dice: float


def rounding(segmenter: Segmenter, volume: Volume, prompts: PromptSet) -> Rounding:
    """Compare our logits in the segmenter's precision with those in float32."""
    exact = Segmenter(segmenter.backbone, str(segmenter.device), "fp32", 1)
    coarse, fine = (box_logits(one, volume, prompts) for one in (segmenter, exact))
    level = fine.mean() + fine.std()
    correlation = float(np.corrcoef(coarse.ravel(), fine.ravel())[0, 1])
    return Rounding(correlation, overlap(coarse > level, fine > level))


def box_logits(segmenter: Segmenter, volume: Volume, prompts: PromptSet) -> np.ndarray:
    """(N, m, m) logits of prompted slices, as the network gives them."""
    session = segmenter.session(volume, axis=2)
    session.add(*prompts)
    resolved = session.prompts.to_voxel(volume)
    groups = session.prepared(resolved, 2).run(resolved, propagate=False)
    found = [mask for g in groups for slices in g.answers.values() for mask in slices.values()]
    return torch.stack([mask.logits for mask in found]).numpy()


class Timed:
    """A backbone that counts the seconds of its parts.

    Args:
        backbone: What is timed.
        device: Where it computes.
    """

    def __init__(self, backbone: Backbone, device: torch.device) -> None:
        self.spec, self.module = backbone.spec, backbone.module
        self._backbone, self._device = backbone, device
        self.seconds = {"encode": 0.0, "decode": 0.0}

    def encode(self, images: torch.Tensor) -> Embedding:
        """As the backbone's."""
        return self._timed("encode", lambda: self._backbone.encode(images))

    def decode(
        self,
        embedding: Embedding,
        prompts: PromptBatch,
        multimask: bool = False,
        concept: torch.Tensor | None = None,
    ) -> Decoded:
        """As the backbone's."""
        named = {} if concept is None else {"concept": concept}
        return self._timed(
            "decode", lambda: self._backbone.decode(embedding, prompts, multimask, **named)
        )

    def _timed(self, part: str, work: Callable[[], T]) -> T:
        began = perf_counter()
        found = work()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.seconds[part] += perf_counter() - began
        return found


def stage_shares(segmenter: Segmenter, volume: Volume, prompts: PromptSet) -> dict[str, float]:
    """Shares of the time that encoding, decoding and all the rest of our run take."""
    timed = Timed(segmenter.backbone, segmenter.device)
    watched = Segmenter(timed, str(segmenter.device), segmenter.precision, segmenter.batch_size)
    began = perf_counter()
    ours(watched)(volume, prompts)
    total = perf_counter() - began
    shares = {part: spent / total for part, spent in timed.seconds.items()}
    return shares | {"rest": 1 - sum(shares.values())}


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Dice of two bool arrays, 1 where both are empty."""
    total = int(one.sum()) + int(other.sum())
    return 1.0 if total == 0 else 2 * int((one & other).sum()) / total


def peak_memory() -> float:
    """Peak memory in MiB: of the GPU if one is used, else of this process since its start."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@dataclass(frozen=True)
class Limit:
    """How near the encoder comes to the machine's matrix-multiply peak.

    Args:
        flops: Floating-point operations of one slice.
        peak: Measured operations a second of a large matrix product.
        reached: Operations a second of the encoder.
    """

    flops: float
    peak: float
    reached: float

    @property
    def share(self) -> float:
        """Reached over peak."""
        return self.reached / self.peak


def encoder_limit(segmenter: Segmenter, batch: int = 1, rounds: int = 2) -> Limit:
    """Measure the encoder against a matrix product of the same precision on the same device."""
    spec, device = segmenter.backbone.spec, segmenter.device
    images = torch.rand(batch, 3, spec.input_size, spec.input_size, device=device)
    flops = encoder_flops(segmenter.backbone, images[:1])
    with torch.inference_mode(), autocast(device, segmenter.precision):
        seconds = best_of(lambda: segmenter.backbone.encode(images), rounds, device)
    reached = flops * batch / seconds
    return Limit(flops, matmul_peak(device, DTYPES[segmenter.precision]), reached)


def encoder_flops(backbone: Backbone, images: torch.Tensor) -> float:
    """Floating-point operations of `encode`, counted by torch."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone.encode(images)
    return float(counter.get_total_flops())


def matmul_peak(device: torch.device, dtype: torch.dtype, side: int = 2048) -> float:
    """Operations a second of a (side, side) matrix product, the best of several."""
    one, other = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / best_of(lambda: one @ other, 8, device)


def best_of(work: Callable[[], object], rounds: int, device: torch.device) -> float:
    """Least seconds of `rounds` calls after one that does not count."""
    times = []
    for _ in range(rounds + 1):
        began = perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(perf_counter() - began)
    return min(times[1:])


def table(results: list[Result]) -> str:
    """Markdown rows; ratios are to the last contender."""
    slowest = results[-1].seconds
    rows = ["| contender | seconds | times as fast | peak MiB | Dice with the first |"]
    rows += ["|---|---|---|---|---|"]
    for r in results:
        ratio = slowest / r.seconds
        rows.append(
            f"| {r.name} | {r.seconds:.2f} | {ratio:.2f} | {r.peak_mb:.0f} | {r.dice:.4f} |"
        )
    return "\n".join(rows)


def as_record(results: list[Result], limit: Limit | None, about: dict[str, Any]) -> dict[str, Any]:
    """Plain numbers for a JSON file."""
    share = None if limit is None else {**asdict(limit), "share": limit.share}
    return {**about, "results": [asdict(result) for result in results], "encoder": share}
