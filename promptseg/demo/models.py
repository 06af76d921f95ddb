"""Networks and adapters that the page offers, loaded when first chosen."""

from __future__ import annotations

import threading
from collections import OrderedDict

from promptseg.adapters import list_adapters
from promptseg.adapters.info import read_info
from promptseg.errors import PromptsegError
from promptseg.inference.device import Precision
from promptseg.inference.encoder import EmbeddingCache
from promptseg.session import Segmenter
from promptseg.weights.registry import locate, registry

MOST_LOADED = 3
CACHE_BYTES = 128 << 20


class Models:
    """Segmenters by model; the least recently used goes first.

    Args:
        device: As in `Segmenter`.
        precision: As in `Segmenter`.
        extra: Models offered beside those of the registry: names or paths.
    """

    def __init__(
        self, device: str = "auto", precision: Precision = "auto", extra: tuple[str, ...] = ()
    ) -> None:
        self.device, self.precision, self.extra = device, precision, extra
        self._held: OrderedDict[str, Segmenter] = OrderedDict()
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Models that are on this machine; nothing is downloaded from the page."""
        present = [name for name in registry() if locate(name) is not None]
        return list(dict.fromkeys([*self.extra, *present]))

    def adapters(self, model: str) -> list[str]:
        """Adapters made for a model, by name."""
        found = []
        for name, folder in list_adapters().items():
            try:
                if read_info(folder / "promptseg.json").backbone == model:
                    found.append(name)
            except PromptsegError:
                continue
        return found

    def segmenter(self, model: str, adapter: str | None) -> Segmenter:
        """A segmenter for one visit: without an adapter the network is shared, embeddings never.

        Raises:
            WeightsError: The model is not one that the page offers, or cannot be loaded.
            AdapterError: The adapter does not fit.
        """
        if adapter is not None:
            return self.own(model, adapter)
        with self._lock:
            shared = self._held.get(model) or self._load(model, None)
            self._held[model] = shared
            self._held.move_to_end(model)
            while len(self._held) > MOST_LOADED:
                self._held.popitem(last=False)
        return shared.with_cache(EmbeddingCache(CACHE_BYTES))

    def own(self, model: str, adapter: str | None) -> Segmenter:
        """A segmenter whose network nobody else uses, since adapters change it."""
        with self._lock:
            mine = self._load(model, adapter)
        return mine.with_cache(EmbeddingCache(CACHE_BYTES))

    def _load(self, model: str, adapter: str | None) -> Segmenter:
        known = self.names()
        if model not in known:
            raise PromptsegError(f"model {model!r} is not offered here: {', '.join(known)}")
        if adapter is not None and adapter not in list_adapters():
            raise PromptsegError(f"adapter {adapter!r} is not offered here")
        return self._open(model, adapter)

    def _open(self, model: str, adapter: str | None) -> Segmenter:
        return Segmenter.from_pretrained(
            model, adapter=adapter, device=self.device, precision=self.precision
        )
