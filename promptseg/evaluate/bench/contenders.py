"""What takes turns: promptseg, and the usual ways of using SAM through a volume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch

from promptseg.evaluate.bench.scenes import Scene, largest_box, slice_boxes
from promptseg.evaluate.bench.timed import Timed, timed
from promptseg.inference.crop import frame_of, whole_slice
from promptseg.predictor.engine import Engine
from promptseg.session import Segmenter
from promptseg.volume import Volume
from promptseg.volume.intensity import choose_window, normalise

AXIS = 2
# Networks that do not predict presence say in no other way that a track has lost its target.
SUDDEN = "overlap=0.25,growth=2.5,shrink=0.15"


@dataclass(frozen=True)
class Outcome:
    """What one turn gave.

    Args:
        masks: (T, I, J, K) bool.
        encoded: Slices that were encoded.
        stages: Shares of the time by stage, where they are known.
    """

    masks: np.ndarray
    encoded: int
    stages: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Contender:
    """Something that takes turns.

    Args:
        key: Short name, as `--only` takes it.
        group: Contenders of one group are compared with each other.
        name: What it does, for a reader.
        scene: What it segments.
        turn: One turn.
    """

    key: str
    group: str
    name: str
    scene: Scene
    turn: Callable[[], Outcome]


@dataclass(frozen=True)
class Ours:
    """promptseg in one way of using it; nothing is kept from one turn to the next.

    Args:
        segmenter: Network, device, precision and batch size.
        one_box: True for one box a target that is walked through the volume, False for a box on
            every slice.
        crop: True if the network sees a region around the target, False for whole slices; None
            for what the network was trained for.
        every: True to encode every whole slice before the track, reached or not.
        tracked: True to go to the volume's ends whatever the answers are, and to leave them as
            they are, as a video is tracked.
    """

    segmenter: Segmenter
    one_box: bool = False
    crop: bool | None = None
    every: bool = False
    tracked: bool = False

    def turn(self, scene: Scene) -> Outcome:
        """Segment every target of a scene."""
        watched, clock = self._watched()
        began, encoded, found = perf_counter(), 0, []
        for target in scene.targets:
            prompts = largest_box(target) if self.one_box else slice_boxes(target, everywhere=True)
            session = watched.session(
                scene.volume, AXIS, consistency=self._consistency, stop=self._stop
            )
            session.add(*prompts)
            if self.every:
                encode_all(session.asker.prepared(session.prompts.to_voxel(scene.volume), AXIS))
            answer = session.answer(propagate=self.one_box)
            encoded += answer.report["encoded_slices"]
            found.append(answer.data > 0)
        return Outcome(np.stack(found), encoded, clock.shares(perf_counter() - began))

    @property
    def _consistency(self) -> str:
        return "none" if self.tracked else "clean"

    @property
    def _stop(self) -> str:
        return "never" if self.tracked else SUDDEN

    def _watched(self) -> tuple[Segmenter, Timed]:
        """The same segmenter, whose parts are timed."""
        owner = self.segmenter
        spec = owner.backbone.spec
        spec = spec if self.crop is None else replace(spec, crop=self.crop)
        clock = timed(owner.backbone, owner.device, spec)
        return Segmenter(clock, str(owner.device), owner.precision, owner.runtime.batch_size), clock


def encode_all(engine: Engine) -> None:
    """Encode every whole slice of the volume."""
    encoder = engine.encoder
    frame = frame_of(encoder, AXIS, whole_slice(encoder, AXIS), engine.spacing)
    indices = range(engine.shape[AXIS])
    for start in range(0, len(indices), encoder.batch_size):
        encoder.embed(frame, indices[start : start + encoder.batch_size])


def sam_predictor(sam: torch.nn.Module, scene: Scene) -> Outcome:
    """segment_anything's SamPredictor slice by slice, as its README shows."""
    from segment_anything import SamPredictor

    predictor = SamPredictor(sam)

    def answer(image: np.ndarray, corners: np.ndarray) -> np.ndarray:
        predictor.set_image(image)
        found, _, _ = predictor.predict(box=corners, multimask_output=False)
        return found[0]

    return slice_by_slice(scene, answer)


@torch.no_grad()
def transformers_sam(model: Any, scene: Scene) -> Outcome:
    """transformers' SamModel and SamProcessor slice by slice, as its documentation shows."""
    from transformers import SamImageProcessor, SamProcessor

    side = int(model.config.vision_config.image_size)
    square = {"height": side, "width": side}
    processor = SamProcessor(SamImageProcessor(size={"longest_edge": side}, pad_size=square))

    def answer(image: np.ndarray, corners: np.ndarray) -> np.ndarray:
        inputs = processor(images=image, input_boxes=[[corners.tolist()]], return_tensors="pt")
        found = model(**inputs.to(model.device), multimask_output=False)
        full = processor.image_processor.post_process_masks(
            found.pred_masks.cpu(), inputs["original_sizes"], inputs["reshaped_input_sizes"]
        )
        return np.asarray(full[0])[0, 0]

    return slice_by_slice(scene, answer)


def slice_by_slice(scene: Scene, answer: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Outcome:
    """Ask for the first target on every slice with the box that is nearest to it.

    Args:
        scene: What is segmented.
        answer: Gives the (H, W) bool mask of an (H, W, 3) uint8 image and (4,) x0, y0, x1, y1.
    """
    grey = to_bytes(scene.volume)
    masks = np.zeros((1, *grey.shape), bool)
    boxes = slice_boxes(scene.targets[0], everywhere=True)
    for k, box in enumerate(boxes):
        masks[0, :, :, k] = answer(np.repeat(grey[:, :, k, None], 3, -1), corners(box))
    return Outcome(masks, len(boxes))


def corners(box: Any) -> np.ndarray:
    """(4,) x0, y0, x1, y1 of a box on a slice, pixel centres at whole numbers as SAM has them."""
    return np.array([box.lo[1], box.lo[0], box.hi[1], box.hi[0]], dtype=np.float32) - 0.5


def to_bytes(volume: Volume) -> np.ndarray:
    """(I, J, K) uint8 of the volume through the same window as promptseg uses."""
    return (normalise(volume.data, choose_window(volume)) * 255).round().astype(np.uint8)
