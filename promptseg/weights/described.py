"""safetensors files of the project's own networks: each says what it is and how it is built."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from promptseg.errors import WeightsError
from promptseg.io.atomic import atomic_path

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Described:
    """One kind of file.

    Args:
        form: What `format` in its metadata is.
        version: And `version`; files of another one are refused.
        what: What it holds, for messages.
    """

    form: str
    version: int
    what: str

    def write(self, state: Mapping[str, Tensor], path: Path, about: Mapping[str, str]) -> None:
        """Write tensors in half precision."""
        halved = {name: value.half().contiguous() for name, value in state.items()}
        with atomic_path(path) as temporary:
            save_file(halved, temporary, {"format": self.form, "version": str(self.version),
                                          **about})  # fmt: skip

    def read(self, path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
        """Metadata and float32 tensors.

        Raises:
            WeightsError: If the file is missing, corrupt or holds something else.
        """
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata() or {}
                state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        except (OSError, ValueError, SafetensorError) as error:
            raise WeightsError(f"{path} is no whole safetensors file: {error}") from error
        held = about.get("format"), about.get("version")
        if held != (self.form, str(self.version)):
            raise WeightsError(
                f"{path} is no {self.what} of version {self.version}: a {self.form} file is "
                f"needed, its format is {held[0]!r}, version {held[1]!r}"
            )
        return about, state

    def save(self, network: nn.Module, config: Any, path: Path, about: Mapping[str, str]) -> None:
        """Write a network with the configuration that builds it."""
        self.write(network.state_dict(), path, {"config": json.dumps(config), **about})

    def load(self, path: Path, build: Callable[..., Network]) -> Network:
        """Build a network by its file's configuration, and fill it.

        Raises:
            WeightsError: As `read`, and if tensors are missing or of another shape.
        """
        about, state = self.read(path)
        try:
            network = build(**json.loads(about["config"]))
            network.load_state_dict(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise WeightsError(f"{path} is no whole {self.what}: {error}") from error
        return network

    def load_with_base(self, path: Path, build: Callable[..., Network]) -> tuple[Network, str]:
        """The same of a network that belongs to a model, and the digest of that.

        Raises:
            WeightsError: As `load`, and if the file does not say which model.
        """
        base = self.read(path)[0].get("base")
        if not base:
            raise WeightsError(f"{path} does not say which model it belongs to")
        return self.load(path, build), base
