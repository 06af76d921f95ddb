"""Batched mixed-precision encoding of slices, and a cache that never encodes twice."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from promptseg.backbones.base import Backbone, Embedding
from promptseg.inference.device import DTYPES, autocast, halved_until_it_fits
from promptseg.io.atomic import atomic_path
from promptseg.volume.slicing import Frame
from promptseg.weights.digests import tensors_digest

Progress = Callable[[str, int, int], None]

logger = logging.getLogger(__name__)


class EmbeddingCache:
    """Embeddings by signature, least recently used first out, optionally kept on disk.

    A signature is made of everything that decides the embedding (image, geometry, model,
    adapter, precision), so another model's entry is a miss and never a wrong answer. Safe for
    threads, and on disk for several processes.

    Args:
        max_bytes: Bound on memory, and apart from that on the files.
        folder: Where embeddings are kept between runs; None for memory only.
    """

    def __init__(self, max_bytes: int = 1 << 30, folder: Path | None = None) -> None:
        self.max_bytes = max_bytes
        self.folder = folder
        self._held: OrderedDict[str, Embedding] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __contains__(self, key: str) -> bool:
        return key in self._held or (self._file(key) is not None and self._file(key).exists())  # type: ignore[union-attr]

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""
        return self._bytes

    def get(self, key: str) -> Embedding | None:
        """The embedding of a signature, None on a miss; a damaged file is a miss."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        found = self._read(key)
        if found is not None:
            self._hold(key, found)
        return found

    def put(self, key: str, embedding: Embedding) -> None:
        """Keep one slice's embedding; a file that cannot be written is left out."""
        self._hold(key, embedding)
        file = self._file(key)
        if file is None or file.exists():
            return
        tensors = {str(n): f.contiguous() for n, f in enumerate(embedding.features)}
        try:
            with FileLock(str(self.folder) + ".lock"):
                with atomic_path(file) as temporary:
                    save_file(
                        tensors, temporary, {"signature": key, "sha256": tensors_digest(tensors)}
                    )
                self._trim_files()
        except OSError as error:
            logger.warning("the embedding is not kept as %s: %s", file, error)

    def clear(self) -> None:
        """Forget what is in memory."""
        with self._lock:
            self._held.clear()
            self._bytes = 0

    def _hold(self, key: str, embedding: Embedding) -> None:
        with self._lock:
            previous = self._held.pop(key, None)
            self._bytes += embedding.nbytes - (previous.nbytes if previous else 0)
            self._held[key] = embedding
            while self._bytes > self.max_bytes and len(self._held) > 1:
                _, dropped = self._held.popitem(last=False)
                self._bytes -= dropped.nbytes

    def _file(self, key: str) -> Path | None:
        return None if self.folder is None else self.folder / key[:2] / f"{key}.safetensors"

    def _read(self, key: str) -> Embedding | None:
        file = self._file(key)
        if file is None or not file.exists():
            return None
        try:
            stored = read_signed(file, key)
        except Exception as error:
            logger.warning("dropping the cached embedding %s: %s", file, error)
            with suppress(OSError):
                file.unlink()
            return None
        with suppress(OSError):
            os.utime(file)
        return Embedding(tuple(stored[str(n)] for n in range(len(stored))))

    def _trim_files(self) -> None:
        found = []
        for file in self.folder.glob("*/*.safetensors"):  # type: ignore[union-attr]
            with suppress(FileNotFoundError):
                found.append((file.stat(), file))
        found.sort(key=lambda item: item[0].st_mtime_ns)
        total = sum(stat.st_size for stat, _ in found)
        while total > self.max_bytes and len(found) > 1:
            stat, oldest = found.pop(0)
            total -= stat.st_size
            oldest.unlink(missing_ok=True)


def read_signed(file: Path, key: str) -> dict[str, Tensor]:
    """Tensors of a cache file.

    Raises:
        ValueError: If the file carries another signature or its values changed.
        Exception: What safetensors raises on a file that is not whole.
    """
    with safe_open(file, "pt") as content:
        about = content.metadata() or {}
        stored = {name: content.get_tensor(name) for name in sorted(content.keys(), key=int)}
    if about.get("signature") != key or about.get("sha256") != tensors_digest(stored):
        raise ValueError("it is not what was written for this slice")
    return stored


class SliceEncoder:
    """Embeddings of the slices of one volume, encoded when first asked for.

    Args:
        backbone: Network on its device.
        data: (I, J, K) float32 grey values in [0, 1].
        signature: Names what `data` is: digest of the volume and the window.
        device: Where to compute.
        precision: `fp32`, `bf16` or `fp16`.
        batch_size: Slices at once; halved when memory runs out.
        cache: Where embeddings are kept.
        adapter: Name and digest of the active adapter, part of the signature.
        crop_factor: That model or adapter store, None where they store none; see `inference.crop`.
    """

    def __init__(
        self,
        backbone: Backbone,
        data: np.ndarray,
        signature: str,
        device: torch.device,
        precision: Literal["fp32", "bf16", "fp16"],
        batch_size: int = 8,
        cache: EmbeddingCache | None = None,
        adapter: str = "",
        crop_factor: float | None = None,
    ) -> None:
        self.backbone, self.data, self.device, self.precision = backbone, data, device, precision
        self.batch_size, self.adapter, self.crop_factor = batch_size, adapter, crop_factor
        self.cache = EmbeddingCache() if cache is None else cache
        self.encoded = 0
        spec = backbone.spec
        weights = spec.sha256 or tensors_digest(backbone.module.state_dict())
        model = [spec.name, spec.family, spec.context, spec.pixels, weights, adapter]
        self._base = json.dumps([signature, *model, precision])

    def key(self, frame: Frame, index: int) -> str:
        """Signature of one slice seen through one frame."""
        geometry = [frame.axis, frame.region.rows, frame.region.cols, frame.shape, frame.spacing,
                    frame.size, index]  # fmt: skip
        return hashlib.sha256((self._base + json.dumps(geometry)).encode()).hexdigest()

    def missing(self, frame: Frame, indices: Sequence[int]) -> list[int]:
        """Those of `indices` that would have to be encoded."""
        return [i for i in dict.fromkeys(indices) if self.key(frame, i) not in self.cache]

    def embed(
        self, frame: Frame, indices: Sequence[int], progress: Progress | None = None
    ) -> Embedding:
        """Embedding of B slices, encoding in batches those not in the cache.

        Args:
            frame: Maps the region of interest to the input.
            indices: B slice numbers along the frame's axis, repeats allowed.
            progress: Called with "encode", slices done, slices to do.
        """
        return self.embed_views([(frame, index) for index in indices], progress)

    def embed_views(
        self, places: Sequence[tuple[Frame, int]], progress: Progress | None = None
    ) -> Embedding:
        """The same of B (frame, slice) pairs, also of several frames in one batch."""
        found = {place: self.cache.get(self.key(*place)) for place in dict.fromkeys(places)}
        wanted = [place for place, embedding in found.items() if embedding is None]
        done = 0
        while done < len(wanted):
            chunk = wanted[done : done + self.batch_size]
            encoded = self._encode(chunk)
            for row, place in enumerate(chunk[: len(encoded)]):
                one = Embedding(tuple(f.clone() for f in encoded[row].features))
                found[place] = one
                self.cache.put(self.key(*place), one)
            done += len(encoded)
            self.encoded += len(encoded)
            if progress is not None:
                progress("encode", done, len(wanted))
        return Embedding.cat([found[place].to(self.device) for place in places])  # type: ignore[union-attr]

    def _encode(self, places: Sequence[tuple[Frame, int]]) -> Embedding:
        """Encode as many of `places`, from the front, as fit into memory."""
        found, fitted = halved_until_it_fits(
            len(places), lambda n: self._forward(self._images(places[:n])), "slice", self.device
        )
        if fitted < len(places):
            self.batch_size = fitted
        return found

    def _images(self, places: Sequence[tuple[Frame, int]]) -> Tensor:
        context = self.backbone.spec.context
        runs = [(frame, list(run)) for frame, run in groupby(places, key=itemgetter(0))]
        parts = [f.extract(self.data, [index for _, index in run], context) for f, run in runs]
        return torch.cat(parts)

    @torch.inference_mode()
    def _forward(self, images: Tensor) -> Embedding:
        with autocast(self.device, self.precision):
            embedding = self.backbone.encode(images.to(self.device))
        return embedding.to("cpu" if self.device.type == "cpu" else self.device,
                            DTYPES[self.precision])  # fmt: skip
