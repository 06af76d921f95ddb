"""Muon in the precision that the processor has.

torch's own Muon computes in bfloat16; a CPU that only emulates it spends three quarters of a
training step there.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS, EPSILON = 5, 1e-7


def orthogonalised(gradient: Tensor) -> Tensor:
    """The matrix with its singular values moved to about 1: (A, B) -> (A, B).

    Five quintic Newton-Schulz iterations with the coefficients of Jordan et al., Muon, 2024.
    """
    a, b, c = COEFFICIENTS
    tall = gradient.shape[0] > gradient.shape[1]
    x = gradient.T if tall else gradient
    x = x / x.norm().clamp(min=EPSILON)
    for _ in range(STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) with Nesterov momentum and decoupled weight decay.

    Args:
        params: Matrices (A, B), or convolutions (A, ...) that are taken for the matrix of their
            rows; those without a gradient are passed over.
        lr: Step in spectral norm, times sqrt(A / B) for tall matrices.
        weight_decay: Share of the weights, times `lr`, taken off a step.
        momentum: Of the running mean of gradients.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._update(matrix, matrix.grad, **group)

    def _update(
        self,
        matrix: nn.Parameter,
        gradient: Tensor,
        *,
        lr: float,
        weight_decay: float,
        momentum: float,
        **_: object,
    ) -> None:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        mean = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        direction = orthogonalised(gradient.lerp(mean, momentum).flatten(1))
        rows, columns = direction.shape
        matrix.mul_(1 - lr * weight_decay)
        matrix.add_(direction.view_as(matrix), alpha=-lr * max(1.0, rows / columns) ** 0.5)
