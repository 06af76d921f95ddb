"""Masks, prompts and a tube to track along, for tests of propagation and its parts."""

from __future__ import annotations

import numpy as np
import torch
from support import bright_encoder, discs

from promptseg.inference.decoder import SliceDecoder, SliceMask
from promptseg.inference.slice_prompts import SlicePrompts
from promptseg.propagation.tracker import Tracker
from promptseg.volume.slicing import Frame, Region

SHAPE = (32, 32, 16)
FRAME = Frame(2, Region((0, 32), (0, 32)), SHAPE, (1.0, 1.0, 1.0), 64)
ALONG = range(2, 13)
TUBE = discs(SHAPE, 2, dict.fromkeys(ALONG, (15, 15, 6)))
EMPTY = SliceMask(torch.full((32, 32), -8.0), 0.9)


def disc(radius=8, row=None, column=None, quality=0.9, presence=1.0, size=32):
    row = size / 2 if row is None else row
    column = size / 2 if column is None else column
    rows, columns = np.indices((size, size))
    inside = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    return SliceMask(torch.from_numpy(inside * 16.0 - 8).float(), quality, presence)


def flat(value, quality=0.9):
    return SliceMask(torch.full((4, 4), float(value)), quality)


def click(index, row=15, col=15, label=1, correction=False):
    return SlicePrompts(points=[(row, col, index)], labels=[label], correction=[correction])


def box(index, low=8, high=23):
    return SlicePrompts(box=((low, low, index), (high, high, index + 1)))


def propagator(image=TUBE, backbone=None, criteria=None, batch_size=4):
    encoder = bright_encoder(image, backbone, batch_size=batch_size)
    return Tracker(SliceDecoder(encoder), FRAME, criteria)


def reached(tracker, key_masks, limits=(0, 16)):
    masks = {i: tracker.answer(i, p) for i, p in key_masks.items()}
    return tracker.propagate({1: masks}, {1: limits})[1]


def shown(answer):
    return FRAME.restore(answer.logits[None])[0].numpy() > 0
