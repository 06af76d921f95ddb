"""Which contenders there are, and the networks that they need."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from segment_anything import sam_model_registry

from promptseg.backbones.convert import to_transformers
from promptseg.backbones.folders import wrap
from promptseg.backbones.transformers import TransformersBackbone
from promptseg.evaluate.bench.contenders import (
    Contender,
    Ours,
    Outcome,
    sam_predictor,
    transformers_sam,
)
from promptseg.evaluate.bench.crisp import fit_masks, hand_over
from promptseg.evaluate.bench.rows import ROWS
from promptseg.evaluate.bench.scenes import Scene, organ_scene
from promptseg.evaluate.bench.video import image_part, random_video, sam2_video
from promptseg.inference.device import DTYPES, Precision
from promptseg.session import Segmenter
from promptseg.weights.digests import tensors_digest
from promptseg.weights.registry import load_state

TRACK = "one box, only slices that the track reaches"


def random_vit_b() -> torch.nn.Module:
    """segment_anything's ViT-B of random weights."""
    torch.manual_seed(0)
    return sam_model_registry["vit_b"]().eval()


def checkpoint_vit_b(path: Path) -> torch.nn.Module:
    """segment_anything's ViT-B from an original checkpoint; WeightsError if it does not load."""
    sam = sam_model_registry["vit_b"]()
    sam.load_state_dict(load_state(path))
    return sam.eval()


@dataclass
class Lineup:
    """Contenders by key; a network is made when the first of them that needs it is asked for.

    Args:
        make_sam: Gives segment_anything's network.
        fit: True to fit its masks to the scene, for random weights.
        scene: What SAM and SAM 2 segment.
        organs: What the default model segments.
        device: As for `Segmenter`.
        precision: As for `Segmenter`.
        batch: Slices that we encode at once.
        make_video: Gives the `Sam2VideoModel`.
        say: Told what is being made.
    """

    make_sam: Callable[[], torch.nn.Module]
    fit: bool
    scene: Scene
    organs: Callable[[], Scene] = organ_scene
    device: str = "auto"
    precision: Precision = "auto"
    batch: int = 1
    make_video: Callable[[], torch.nn.Module] = random_video
    say: Callable[[str], None] = lambda _: None

    @cached_property
    def sam(self) -> tuple[torch.nn.Module, TransformersBackbone]:
        """segment_anything's network, and the same weights with fused attention."""
        self.say("making SAM" + (", fitting its masks to the target" if self.fit else ""))
        sam = self.make_sam()
        backbone = wrap(to_transformers(sam.state_dict(), "SAM", "sdpa"), name="SAM")
        backbone.module.to(self.wanted.device)
        if self.fit:
            fit_masks(backbone, self.scene)
            hand_over(backbone, sam)
        return sam.to(self.wanted.device), backbone

    @cached_property
    def wanted(self) -> Segmenter:
        """The default model: decides device and precision of all."""
        return Segmenter.from_pretrained("default", None, self.device, self.precision)

    @cached_property
    def segmenter(self) -> Segmenter:
        """Ours with SAM's weights."""
        return self._segmenter(self.sam[1])

    @cached_property
    def small(self) -> Segmenter:
        """Ours with SAM's weights at three quarters of its input size."""
        size = self.sam[1].spec.input_size * 3 // 4
        module: torch.nn.Module = self.sam[1].module
        return self._segmenter(wrap(module, name="SAM", input_size=size))  # type: ignore[arg-type]

    @cached_property
    def video(self) -> tuple[torch.nn.Module, Segmenter, Segmenter]:
        """The video model in our precision, and ours with its image part and with all of it."""
        self.say("making SAM 2.1, fitting its masks to the target")
        video = self.make_video()
        backbone = image_part(video)
        backbone.module.to(self.wanted.device)
        fit_masks(backbone, self.scene)
        video.mask_decoder.load_state_dict(backbone.module.mask_decoder.state_dict())  # type: ignore[union-attr]
        whole = wrap(copy.deepcopy(video), name="sam2_video of random weights")  # type: ignore[arg-type]
        video.to(self.wanted.device, DTYPES[self.wanted.precision])
        return video, self._segmenter(backbone), self._segmenter(whole)

    @cached_property
    def phantom(self) -> Scene:
        """The organs' scene."""
        return self.organs()

    def _segmenter(self, backbone: TransformersBackbone) -> Segmenter:
        """Ours with a network whose digest is known, as that of a file is."""
        owner, digest = self.wanted, tensors_digest(backbone.module.state_dict())
        backbone.spec = replace(backbone.spec, sha256=digest)
        return Segmenter(backbone, str(owner.device), owner.precision, self.batch)

    def contenders(self, keys: Sequence[str]) -> list[Contender]:
        """Those of some keys, in the order of the table."""
        return [getattr(self, f"_{group}")(key) for key, group in ROWS.items() if key in keys]

    def _sam(self, key: str) -> Contender:
        sam, backbone = self.sam
        size = backbone.spec.input_size
        start = f"promptseg, {self.wanted.precision}, "
        turn: Callable[[Scene], Outcome]
        if key == "sam-predictor":
            name = "segment_anything SamPredictor, fp32, a box on every slice"
            turn = partial(sam_predictor, sam)
        elif key == "transformers":
            name = "transformers SamModel, fp32, a box on every slice"
            turn = partial(transformers_sam, backbone.module)
        elif key == "region":
            name = (
                f"{start}{TRACK}, a region around the target at {size * 3 // 4} pixels (position "
                "tables interpolated)"
            )
            turn = Ours(self.small, one_box=True, crop=True).turn
        elif key == "frontier":
            name = f"{start}{TRACK}, whole at {size} pixels"
            turn = Ours(self.segmenter, one_box=True).turn
        else:
            name = f"{start}a box on every slice, whole at {size} pixels"
            turn = Ours(self.segmenter).turn
        return Contender(key, "SAM", name, self.scene, partial(turn, self.scene))

    def _sam2(self, key: str) -> Contender:
        video, still, remembering = self.video
        kind = self.wanted.precision
        turn: Callable[[Scene], Outcome]
        if key == "sam2-video":
            name = f"transformers Sam2VideoModel, {kind}, one box, memory through all slices"
            turn = partial(sam2_video, video)
        elif key == "sam2-memory":
            name = f"promptseg, {kind}, Sam2VideoModel, one box, memory through all slices"
            turn = Ours(remembering, one_box=True, tracked=True).turn
        else:
            track = key == "sam2-frontier"
            name = f"promptseg, {kind}, Sam2Model, {TRACK if track else 'a box on every slice'}"
            turn = Ours(still, one_box=track).turn
        return Contender(key, "SAM 2.1", name, self.scene, partial(turn, self.scene))

    def _default(self, key: str) -> Contender:
        kind, count = self.wanted.precision, len(self.phantom.targets)
        start = f"default model, {kind}, one box for each of {count} organs, "
        made = {
            "default-region": (
                "a region around each, only slices that the track reaches",
                Ours(self.wanted, one_box=True),
            ),
            "default-frontier": (
                "whole slices, only those that the track reaches",
                Ours(self.wanted, one_box=True, crop=False),
            ),
            "default-whole": (
                "whole slices, every one encoded",
                Ours(self.wanted, one_box=True, crop=False, every=True),
            ),
        }
        name, ours = made[key]
        return Contender(
            key, "default", start + name, self.phantom, partial(ours.turn, self.phantom)
        )
