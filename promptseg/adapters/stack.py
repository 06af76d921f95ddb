"""Several adapters on one backbone: switched in milliseconds, scaled, taken off again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from promptseg.adapters import injection
from promptseg.adapters.files import Adapter, lora_options
from promptseg.adapters.fitting import check_fits
from promptseg.backbones.base import Backbone
from promptseg.errors import AdapterError
from promptseg.weights.digests import tensors_digest


def base_digest(backbone: Backbone) -> str:
    """SHA-256 of a backbone's weights: of their file, or of the tensors where there is none."""
    if backbone.spec.sha256 is not None:
        return backbone.spec.sha256
    return tensors_digest(dict(sorted(backbone.module.state_dict().items())))


class AdapterStack:
    """Adapters held by one backbone, at most one of them active.

    Adding, switching and scaling never touch the base's values for good: with no active adapter
    the backbone answers bit for bit as it did before.

    Args:
        backbone: Its module is changed in place; nothing happens before the first `add`.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.scale = 1.0
        self._held: dict[str, Adapter] = {}
        self._slots: dict[str, str] = {}
        self._made = 0
        self._active: str | None = None
        self._base = ""
        self._layers: dict[str, nn.Module] = {}
        self._parameters: dict[str, nn.Parameter] = {}
        self._trained: dict[str, bool] = {}
        self._kept: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self._held)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the order they were added."""
        return tuple(self._held)

    @property
    def active(self) -> Adapter | None:
        """The adapter in use."""
        return None if self._active is None else self._held[self._active]

    @property
    def signature(self) -> str:
        """Text that differs wherever embeddings differ; empty without an active adapter."""
        active = self.active
        return "" if active is None else f"{active.name} {active.digest} {self.scale!r}"

    @property
    def tokens(self) -> Mapping[int, Tensor]:
        """(C,) token by label of the active adapter."""
        return {} if self.active is None else self.active.tokens

    @property
    def base_sha256(self) -> str:
        """Digest of the base's weights, whatever is attached to it."""
        return self._base if self._held else base_digest(self.backbone)

    @contextmanager
    def using(self, name: str | None) -> Iterator[None]:
        """Switch to an adapter for a while; what is active already keeps its scale.

        Raises:
            AdapterError: There is no such adapter.
        """
        kept = self._active, self.scale
        if name != self._active:
            self.use(name)
        try:
            yield
        finally:
            if kept != (self._active, self.scale):
                self.use(*kept)

    def get(self, name: str) -> Adapter:
        """Adapter of that name.

        Raises:
            AdapterError: There is none.
        """
        if name not in self._held:
            known = ", ".join(self._held) or "none"
            raise AdapterError(f"no adapter {name!r} is loaded; loaded: {known}")
        return self._held[name]

    def add(self, adapter: Adapter) -> None:
        """Attach an adapter without using it yet.

        Raises:
            AdapterError: The name is taken or it does not fit; nothing was changed.
        """
        if adapter.name in self._held:
            raise AdapterError(f"an adapter {adapter.name!r} is loaded already: remove it first")
        module = self.backbone.module
        if not self._held:
            self._note_base(module)
        check_fits(adapter, self.backbone.spec, self._base, self._layers, self._parameters)
        slot = f"slot{self._made}"
        if adapter.lora:
            options = {**lora_options(adapter.info), "inference_mode": True}
            injection.inject(module, slot, adapter.layers, options)
            injection.fill(module, slot, adapter.lora)
        self._made += 1
        self._held[adapter.name], self._slots[adapter.name] = adapter, slot
        self._apply()

    def use(self, name: str | None, scale: float = 1.0) -> None:
        """Switch to an adapter, or with None to the base alone.

        Args:
            name: One that was added.
            scale: Strength of what it changes; 0 is the base, 1 the adapter as it was trained.
                The tokens are not scaled.

        Raises:
            AdapterError: There is no such adapter, or the scale is not finite.
        """
        if name is not None:
            self.get(name)
        if not torch.isfinite(torch.tensor(float(scale))):
            raise AdapterError(f"scale is {scale}: give a finite number, 1 for the whole adapter")
        self._active, self.scale = name, float(scale)
        self._apply()

    def remove(self, name: str) -> None:
        """Take an adapter off; if it is the active one, the base remains.

        Raises:
            AdapterError: There is no such adapter.
        """
        adapter = self.get(name)
        if self._active == name:
            self.use(None)
        if adapter.lora:
            injection.drop(self.backbone.module, self._slots[name])
        del self._held[name], self._slots[name]
        if not self._held:
            for key, parameter in self._parameters.items():
                parameter.requires_grad_(self._trained[key])

    def merged_state(self) -> dict[str, Tensor]:
        """State dict of a plain network that answers prompts as the active adapter does."""
        slot = None if self._active is None else self._slots[self._active]
        return injection.plain_state(self.backbone.module, slot)

    def _note_base(self, module: nn.Module) -> None:
        self._base = base_digest(self.backbone)
        self._layers = dict(module.named_modules())
        self._parameters = dict(module.named_parameters())
        self._trained = {name: p.requires_grad for name, p in self._parameters.items()}

    def _apply(self) -> None:
        """Bring the network to what `active` and `scale` say."""
        active = self.active
        with torch.no_grad():
            for name, value in self._kept.items():
                self._parameters[name].copy_(value)
            self._kept.clear()
            for name, delta in ({} if active is None else active.deltas).items():
                parameter = self._parameters[name]
                self._kept[name] = parameter.detach().clone()
                parameter.add_(delta.to(parameter.device, parameter.dtype), alpha=self.scale)
        slot = None if active is None else self._slots[active.name]
        injection.switch(self.backbone.module, slot, self.scale)
