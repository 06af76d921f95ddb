"""The training loop: resumable at any step, in one process or several."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from promptseg.backbones.base import half_size
from promptseg.errors import PromptsegError
from promptseg.finetune.adapter_network import AdapterNetwork
from promptseg.finetune.config import FinetuneConfig
from promptseg.finetune.lora import Learner
from promptseg.finetune.memory import checkpointed
from promptseg.finetune.named_losses import loss_by_name
from promptseg.finetune.objectives import objective_class
from promptseg.finetune.optimiser import Optimiser, stepped_by
from promptseg.finetune.processes import Processes
from promptseg.finetune.state import Log, State, load_state, save_state
from promptseg.finetune.views import View, ViewMaker
from promptseg.finetune.weights import Weights
from promptseg.inference.device import choose_precision, halved_until_it_fits

LOG_EVERY = 20
CLIP = 1.0
SHORT_STEPS = 200
Validate = Callable[[int], dict[str, float]]
Progress = Callable[[str, int, int], None]


class Trainer:
    """Trains a learner.

    Step n sees the views n * batch to (n + 1) * batch, whoever computes them and however often it
    was interrupted; so a resumed run gives the same weights, bit for bit on the same machine.

    Args:
        learner: What learns.
        views: Draws training views.
        config: How; has steps or minutes.
        processes: The group this process belongs to.
        folder: Of the adapter, for checkpoints and logs; None keeps nothing.
        about: What must be the same to go on from a checkpoint.
    """

    def __init__(
        self,
        learner: Learner,
        views: ViewMaker,
        config: FinetuneConfig,
        processes: Processes,
        folder: Path | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.learner, self.views, self.config, self.processes = learner, views, config, processes
        self.folder, self.about = folder, about or {}
        precision = choose_precision(config.precision, processes.device)  # type: ignore[arg-type]
        precision = "bf16" if precision == "fp16" else precision
        self.small = half_size(learner.backbone) if config.half else None
        backbones = [b for b in (learner.backbone, self.small) if b is not None]
        loss = loss_by_name(config.loss)
        self.network = AdapterNetwork(
            learner, backbones, loss, config.unprompted, precision, config.dense
        )
        self.objective = objective_class(config.objective)(self.network)
        self.small_views = None if self.small is None else views.resized(self.small.spec)
        self.parameters = {**learner.parameters, **self.objective.parameters}
        self.optimiser = Optimiser(
            self.parameters,
            learner.naming,
            list(learner.lora.values()),
            stepped_by(config.optimiser, learner.backbone.spec.family, views.strokes),
            config.rate,
            config.token_rate,
            config.weight_decay,
        )
        self.weights = Weights(self.parameters, config.average)
        self.step, self.seconds = 0, 0.0
        self.micro = config.micro_batch or config.batch

    @property
    def progress(self) -> float:
        """Share of the training that is done."""
        if self.config.minutes is not None:
            return min(1.0, self.seconds / (self.config.minutes * 60))
        return min(1.0, self.step / (self.config.steps or 1))

    def restore(self) -> bool:
        """Go to the last checkpoint; False if there is none.

        Raises:
            AdapterError: It is damaged or of another run.
        """
        state = None if self.folder is None else load_state(self.folder, self.about)
        if state is None:
            return False
        self.weights.restore(state.parameters, state.average)
        self.optimiser.load_state_dict(dict(state.optimiser))
        self.objective.restore(state.objective)
        self.step, self.seconds, self.micro = state.step, state.seconds, state.micro
        return True

    def save(self) -> None:
        """Write a checkpoint, from the first process."""
        if self.folder is None or not self.processes.first:
            return
        state = State(
            self.step,
            self.seconds,
            self.micro,
            self.weights.copies(),
            dict(self.weights.average),
            self.optimiser.state_dict(),
            dict(self.objective.state),
        )
        save_state(self.folder, state, self.about)

    def run(self, validate: Validate | None = None, progress: Progress | None = None) -> None:
        """Train to the end.

        Args:
            validate: Called with the step now and then; gives measures to log.
            progress: Called with "train", done, total: steps, or seconds of a timed run.

        Raises:
            PromptsegError: One view does not fit into memory, or the loss is not finite.
        """
        log = None
        if self.folder is not None and self.processes.first:
            log = Log(self.folder, self.step)
        with ExitStack() as stack:
            stack.enter_context(
                checkpointed(self.learner.backbone.module, self.config.checkpointing)
            )
            if log is not None:
                stack.callback(log.close)
            self._loop(log, validate, progress)
        self.save()

    def _loop(self, log: Log | None, validate: Validate | None, progress: Progress | None) -> None:
        sums: dict[str, float] = {}
        saved = began = time.monotonic()
        for views in self.batches():
            if self.progress >= 1:
                break
            parts = self.update(views)
            self.seconds = self.processes.agree(self.seconds + time.monotonic() - began)
            for name, value in {**parts, "steps": 1}.items():
                sums[name] = sums.get(name, 0.0) + value
            if log is not None and (self.step % LOG_EVERY == 0 or self.progress >= 1):
                log.write(self._row(sums))
                sums = {}
            if validate is not None and self.step % self.config.validate_every == 0:
                measures = validate(self.step)
                if log is not None:
                    log.write({"step": self.step, **measures})
            if self._due(time.monotonic() - saved):
                self.save()
                saved = time.monotonic()
            if progress is not None:
                progress("train", *self._shown())
            began = time.monotonic()

    def _due(self, waited: float) -> bool:
        if self.config.checkpoint_steps is not None:
            return self.step % self.config.checkpoint_steps == 0
        return waited >= self.config.checkpoint_seconds

    def _shown(self) -> tuple[int, int]:
        if self.config.minutes is None:
            return self.step, self.config.steps or 1
        return int(self.seconds), round(self.config.minutes * 60)

    def _row(self, sums: dict[str, float]) -> dict[str, float]:
        means = {name: value / sums["steps"] for name, value in sums.items() if name != "steps"}
        return {"step": self.step, "seconds": round(self.seconds, 2), "micro": self.micro, **means}

    def current_views(self) -> ViewMaker:
        """Views of the stage that the training is in: first small ones, then whole ones."""
        small = self.small_views
        return self.views if small is None or self.progress >= self.config.half else small

    def batches(self) -> Iterator[list[View]]:
        """This process's views, step by step from where the training stands."""
        while True:
            maker = self.current_views()
            loader = DataLoader(
                _Views(maker),
                batch_sampler=_Numbers(self.step, self.config.batch, self.processes),
                num_workers=self.config.workers,
                collate_fn=list,
                generator=torch.Generator(),
            )
            for views in loader:
                yield views
                if self.current_views() is not maker:
                    break

    def update(self, views: Sequence[View]) -> dict[str, float]:
        """One optimiser step on this process's views.

        Raises:
            PromptsegError: One view does not fit into memory, or the loss is not finite.
        """
        self._set_rate()
        self.learner.modes()
        parts = self.gradients(views)
        gradients = self._all_gradients()
        self.processes.add(gradients)
        norm = torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), CLIP)
        if not bool(torch.isfinite(norm)):
            raise PromptsegError(
                f"the gradient of step {self.step} is not finite: give a lower rate (now "
                f"{self.config.rate}) or precision fp32; the last checkpoint is kept"
            )
        self.optimiser.step()
        self.step += 1
        self.objective.stepped(self.step)
        self.weights.follow(self.step)
        return parts

    def _all_gradients(self) -> list[Tensor]:
        """Of everything that got one, the same in every process."""
        if self.processes.world > 1 and self.views.unlabelled:
            # A process whose samples are all unlabelled has none of what only labels teach.
            for parameter in self.parameters.values():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        return [p.grad for p in self.parameters.values() if p.grad is not None]

    def gradients(self, views: Sequence[View]) -> dict[str, float]:
        """Leave the gradients of the mean over a batch in the parameters; parts of the loss.

        Computed in parts that fit into memory.

        Raises:
            PromptsegError: One view does not.
        """
        most = min(self.micro, len(views))
        parts, fitted = halved_until_it_fits(
            most,
            lambda count: self._accumulate(views, count),
            "slice",
            self.processes.device,
            "use checkpointing, a smaller model, encoder = frozen or a smaller input_size",
        )
        if fitted < most:
            self.micro = fitted
        return parts

    def _accumulate(self, views: Sequence[View], count: int) -> dict[str, float]:
        self.optimiser.zero_grad(set_to_none=True)
        # Dropout is the only randomness of a step, and must not depend on what ran before.
        devices = [] if self.processes.device.type == "cpu" else [self.processes.device]
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed((self.config.seed << 32) + self.step * self.processes.world
                              + self.processes.rank)  # fmt: skip
            sums: dict[str, float] = {}
            for start in range(0, len(views), count):
                chunk = views[start : start + count]
                batch = self.network.collate(chunk, self.progress, self.views.boost)
                loss, parts = self.objective(batch)
                loss = loss / self.config.batch
                loss.backward()
                share = len(chunk) / len(views)
                for name, value in parts.items():
                    sums[name] = sums.get(name, 0.0) + value * share
                sums["loss"] = sums.get("loss", 0.0) + float(loss.detach())
        return sums

    @property
    def expected_steps(self) -> float:
        """Steps of the whole run; of a timed one, what those done so far promise."""
        if self.config.minutes is None:
            return float(self.config.steps or 1)
        return self.step / self.progress if self.step and self.progress else float(SHORT_STEPS)

    def _set_rate(self) -> None:
        # The first steps of Adam are its roughest, and a short run has no time to mend them.
        gentle = min(1.0, self.expected_steps / SHORT_STEPS) ** 0.5
        warm = min(1.0, (self.step + 1) / max(1, self.config.warmup))
        falling = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.progress))
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.rate * group["factor"] * gentle * warm * falling


class _Views(torch.utils.data.Dataset[View]):
    """A view maker as a data set without an end."""

    def __init__(self, maker: ViewMaker) -> None:
        self.maker = maker

    def __getitem__(self, number: int) -> View:
        return self.maker[number]


class _Numbers(Sampler[list[int]]):
    """Numbers of this process's views, step by step from `step` on."""

    def __init__(self, step: int, batch: int, processes: Processes) -> None:
        self.step, self.batch, self.processes = step, batch, processes

    def __iter__(self) -> Iterator[list[int]]:
        step = self.step
        while True:
            yield self.processes.share(range(step * self.batch, (step + 1) * self.batch))
            step += 1
