"""Putting weights into a network: input sizes, position tables, nothing left unset."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from promptseg.errors import WeightsError


def check_input_size(size: int, multiple: int, name: str) -> int:
    """Return `size` if the network can take it.

    Args:
        size: Side of the square input in pixels.
        multiple: The size must be a multiple of this many pixels.
        name: Model named in the message.

    Raises:
        WeightsError: If it cannot.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < multiple or size % multiple:
        raise WeightsError(
            f"{name} cannot take an input size of {size!r}: give a whole number of pixels, a "
            f"multiple of {multiple} and not less than {multiple}"
        )
    return size


def resize_positions(state: Mapping[str, Tensor], grid: int) -> dict[str, Tensor]:
    """Interpolate the position tables of a SAM encoder to `grid` x `grid` patches.

    The absolute table is resized bicubically, the relative tables of the blocks that attend
    globally linearly; blocks that attend in windows keep theirs. Works on segment-anything's
    names and on transformers', which end alike.

    Args:
        state: State dict with one `pos_embed` of shape (1, H, W, C).
        grid: Patches along a side at the new input size.
    """
    table = next(tensor for name, tensor in state.items() if name.endswith(".pos_embed"))
    trained = table.shape[1]
    if trained == grid:
        return dict(state)
    return {name: _resized(name, tensor, trained, grid) for name, tensor in state.items()}


def _resized(name: str, tensor: Tensor, trained: int, grid: int) -> Tensor:
    if name.endswith(".pos_embed"):
        return _interpolate(tensor.permute(0, 3, 1, 2), (grid, grid), "bicubic").permute(0, 2, 3, 1)
    relative = name.endswith((".rel_pos_h", ".rel_pos_w"))
    if relative and len(tensor) == 2 * trained - 1:
        return _interpolate(tensor.T[None], (2 * grid - 1,), "linear")[0].T
    return tensor


def _interpolate(tensor: Tensor, size: tuple[int, ...], mode: str) -> Tensor:
    resized = functional.interpolate(tensor.float(), size=size, mode=mode, align_corners=False)
    return resized.to(tensor.dtype)


def load_whole(module: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load every weight, none missing and none left over.

    Raises:
        WeightsError: If names or shapes differ; the module may then be partly loaded.
    """
    try:
        result = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        mismatch = str(error).splitlines()[-1].strip()
        raise WeightsError(f"{name} does not fit the network: {mismatch}") from error
    for problem, keys in (("lacks", result.missing_keys), ("has unknown", result.unexpected_keys)):
        if keys:
            raise WeightsError(
                f"{name} does not fit the network: it {problem} {len(keys)} weights, the first "
                f"is {keys[0]}"
            )
