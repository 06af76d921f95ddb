"""Validation while training: Dice on fixed views, and their contours as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from promptseg.evaluate.metrics import dice
from promptseg.finetune.adapter_network import AdapterNetwork
from promptseg.finetune.learning import rows_of
from promptseg.finetune.state import FOLDER
from promptseg.finetune.views import View, ViewMaker
from promptseg.io.atomic import atomic_path

SHOWN, SIDE = 8, 256
TRUTH, PROMPTED, UNPROMPTED = (80, 220, 80), (60, 60, 240), (240, 160, 40)
BATCH = 4


class Validation:
    """Dice of box prompts and of no prompt on the same views each time.

    Args:
        network: Answers; its learner holds the weights.
        maker: Of plain views of the validation cases.
        count: How many views.
        folder: Of the adapter, for the pictures; None draws none.
    """

    def __init__(
        self, network: AdapterNetwork, maker: ViewMaker, count: int, folder: Path | None
    ) -> None:
        self.network, self.folder = network, folder
        self.views = [maker[number] for number in range(count)]

    def __call__(self, step: int) -> dict[str, float]:
        """Measure; draw a picture for this step."""
        self.network.learner.backbone.module.eval()
        found: dict[str, list[float]] = {"box_dice": [], "auto_dice": []}
        pictures: list[np.ndarray] = []
        for start in range(0, len(self.views), BATCH):
            chunk = self.views[start : start + BATCH]
            answers = self._answers(chunk)
            for view, masks in zip(chunk, answers, strict=True):
                for name, mask in masks.items():
                    found[name].append(dice(mask > 0, view.masks[view.places[0]] > 0.5))
                if len(pictures) < SHOWN:
                    pictures.append(drawn(view, masks))
        if self.folder is not None and pictures:
            save_contours(pictures, self.folder / FOLDER / "contours" / f"step{step:06d}.png")
        return {name: float(np.mean(values)) for name, values in found.items() if values}

    def boxes(self) -> float:
        """Mean Dice of box prompts alone, without a picture."""
        self.network.learner.backbone.module.eval()
        found = []
        for start in range(0, len(self.views), BATCH):
            chunk = self.views[start : start + BATCH]
            for view, masks in zip(chunk, self._answers(chunk), strict=True):
                if "box_dice" in masks:
                    found.append(dice(masks["box_dice"] > 0, view.masks[view.places[0]] > 0.5))
        return float(np.mean(found)) if found else 0.0

    @torch.no_grad()
    def _answers(self, views: Sequence[View]) -> list[dict[str, Tensor]]:
        """Logits (m, m) of each view's first label by prompt and by token."""
        embedding = self.network.encode(views)
        answers: list[dict[str, Tensor]] = [{} for _ in views]
        for rows in rows_of(views, views[0].masks.shape[0]):
            decoded = self.network.decode(embedding, rows, views[0].size)
            name = "auto_dice" if rows.tokens else "box_dice"
            for n, place, logits in zip(rows.views, rows.places, decoded.logits, strict=True):
                if place == views[n].places[0]:
                    answers[n][name] = logits[0].float().cpu()
        return answers


def drawn(view: View, masks: dict[str, Tensor]) -> np.ndarray:
    """(SIDE, SIDE, 3) picture: truth green, the answer to a box red, to no prompt blue."""
    grey = functional.interpolate(view.image[None, 1:2], size=(SIDE, SIDE), mode="bilinear")[0, 0]
    picture = cv2.cvtColor((grey.numpy() * 255).astype(np.uint8), cv2.COLOR_GRAY2BGR)
    lines: list[tuple[Tensor, tuple[int, int, int]]] = [(view.masks[view.places[0]] - 0.5, TRUTH)]
    colours = {"box_dice": PROMPTED, "auto_dice": UNPROMPTED}
    lines += [(mask, colours[name]) for name, mask in masks.items()]
    for logits, colour in lines:
        large = functional.interpolate(logits[None, None], size=(SIDE, SIDE), mode="bilinear")[0, 0]
        edges, _ = cv2.findContours(
            (large > 0).numpy().astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(picture, edges, -1, colour, 1)
    return picture


def save_contours(pictures: Sequence[np.ndarray], path: Path, columns: int = 4) -> None:
    """Write pictures side by side as one PNG."""
    blank = np.zeros_like(pictures[0])
    padded = [*pictures, *[blank] * (-len(pictures) % min(columns, len(pictures)))]
    width = min(columns, len(pictures))
    rows = [np.hstack(padded[n : n + width]) for n in range(0, len(padded), width)]
    _, data = cv2.imencode(".png", np.vstack(rows))
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())
