"""Fine-tuning from a recipe: data in, adapter folder out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from promptseg.adapters import Adapter, AdapterInfo, base_digest, read_adapter, write_adapter
from promptseg.adapters.files import INFO
from promptseg.adapters.fitting import check_fits
from promptseg.backbones import load_backbone
from promptseg.backbones.base import Backbone
from promptseg.datasets.cohort import Images, Labels
from promptseg.errors import AdapterError, FormatError
from promptseg.finetune.answered import answered
from promptseg.finetune.card import write_card
from promptseg.finetune.case_loading import (
    organ_cases,
    training_cases,
    unlabelled_cases,
    window_of,
)
from promptseg.finetune.config import FOLDERS, FinetuneConfig
from promptseg.finetune.data import Sources, Split, split_cases
from promptseg.finetune.lora import Learner, make_learner
from promptseg.finetune.objectives import objective_class
from promptseg.finetune.organ_case import sections_of
from promptseg.finetune.planning import Plan, make_plan
from promptseg.finetune.processes import Processes, start_processes
from promptseg.finetune.scoring import final_scores
from promptseg.finetune.settling import kept_share
from promptseg.finetune.state import FILE, FOLDER, about
from promptseg.finetune.trainer import SHORT_STEPS, Progress, Trainer
from promptseg.finetune.validation import Validation
from promptseg.finetune.view_training import teach_view
from promptseg.finetune.views import ViewMaker, stored_factor
from promptseg.finetune.words import label_words
from promptseg.propagation.coarse import load_coarse
from promptseg.report import versions
from promptseg.volume.orientation import CANONICAL

DEFAULT_STEPS = 1000


@dataclass
class Prepared:
    """Everything of a run, ready for its first step.

    Args:
        config: The recipe, with steps or minutes.
        processes: The group this process belongs to.
        backbone: Base, some of it learning.
        learner: What learns.
        trainer: The loop.
        split: Cases and labels.
        validation: Measures while training; None without validation cases.
        base_sha256: Digest of the base.
    """

    config: FinetuneConfig
    processes: Processes
    backbone: Backbone
    learner: Learner
    trainer: Trainer
    split: Split
    validation: Validation | None
    base_sha256: str

    def info(self) -> AdapterInfo:
        """promptseg.json as it stands."""
        config, spec, words = self.config, self.backbone.spec, self.learner.words
        method = "none" if not self.learner.lora else "dora" if config.dora else "lora"
        return AdapterInfo(
            organ=config.organ,
            labels=self.split.labels,
            backbone=spec.name,
            family=spec.family,
            base_sha256=self.base_sha256,
            method=method,  # type: ignore[arg-type]
            rank=config.rank if self.learner.lora else 0,
            alpha=config.alpha,
            rslora=config.rslora,
            targets=config.target_names,
            decoder=config.decoder,
            synonyms=config.synonyms,
            label_words={}
            if words is None
            else dict(zip(self.split.labels, words.names, strict=True)),
            text_sha256="" if words is None else words.tower,
            modality=config.modality,
            single_slice=config.single_slice,
            window=window_of(config),
            axis=config.axis,
            orientation=CANONICAL,
            input_size=spec.input_size,
            crop_factor=stored_factor(config, spec),
            objective=config.objective,
            training_cases=tuple(pair.name for pair in self.split.training),
            validation_cases=tuple(pair.name for pair in self.split.validation),
            annotation=self.split.annotation,
            unlabelled_cases=tuple(one.name for one in self.split.unlabelled),
            sections={}
            if self.split.strokes
            else sections_of(self.trainer.views.cases, list(self.split.labels)),
            steps=self.trainer.step,
            settings={**config.to_dict(), **dict.fromkeys(FOLDERS)},
            licence=config.licence,
            versions=versions(),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )


@contextmanager
def prepared(
    config: FinetuneConfig,
    sources: Sources,
    folder: Path | None,
    backbone: Backbone | None = None,
    start: Adapter | None = None,
    progress: Progress | None = None,
) -> Iterator[Prepared]:
    """Check the data, load the base and set up training; the base is as it was afterwards."""
    if not config.organ.strip():
        raise FormatError("organ is empty: say what the adapter segments")
    if config.steps is None and config.minutes is None:
        config = replace(config, steps=DEFAULT_STEPS)
    split = split_cases(sources, config)
    answers = split.strokes and objective_class(config.objective).answers_strokes
    if config.three_d and split.strokes and not answers:
        raise FormatError("three_d needs whole labels: the coarse 3D view learns no strokes")
    if backbone is None:
        backbone = load_backbone(config.backbone, input_size=config.input_size)
    processes = start_processes(config.device)
    backbone.module.to(processes.device)
    digest, wanted = base_digest(backbone), list(split.labels)
    if start is not None:
        module = backbone.module
        layers, parameters = dict(module.named_modules()), dict(module.named_parameters())
        check_fits(start, backbone.spec, digest, layers, parameters)
    if answers:
        split = _answered(split, backbone, config, processes, folder, start, progress)
    cases, further = training_cases(split, config), unlabelled_cases(split, config)
    words = label_words(split.labels, config.synonyms)
    learner = make_learner(backbone, config, len(wanted), words)
    try:
        if start is not None:
            learner.begin(start, wanted)
        maker = ViewMaker(
            cases,
            len(wanted),
            backbone.spec,
            config,
            unlabelled=further,
            strokes=split.strokes,
        )
        names = [case.name for case in cases]
        tower = "" if words is None else words.tower
        same = about(config.to_dict(), base=digest, training=names, labels=wanted, text=tower)
        if start is not None:
            same["start"] = start.digest
        if further:
            same["unlabelled_names"] = [case.name for case in further]
        trainer = Trainer(learner, maker, config, processes, folder, same)
        check = _validation(trainer, split, config, folder)
        yield Prepared(config, processes, backbone, learner, trainer, split, check, digest)
    finally:
        learner.release()


def _validation(
    trainer: Trainer, split: Split, config: FinetuneConfig, folder: Path | None
) -> Validation | None:
    """What measures while training; None where there is nothing to measure on."""
    held = organ_cases(split.validation[: config.validation_slices], list(split.labels), config)
    usable = [case for case in held if case.slices]
    if not (usable and config.validation_slices and trainer.processes.first):
        return None
    spec = trainer.learner.backbone.spec
    plain = ViewMaker(usable, len(split.labels), spec, config, training=False)
    return Validation(trainer.network, plain, config.validation_slices, folder)


def _answered(
    split: Split,
    backbone: Backbone,
    config: FinetuneConfig,
    processes: Processes,
    folder: Path | None,
    start: Adapter | None,
    progress: Progress | None,
) -> Split:
    """Cases with the network's answers to their strokes; of a plan without a folder, unanswered."""
    if folder is None:
        told = f"the strokes of {len(split.training)} cases are answered first: some seconds each"
        return replace(split, strokes=False, answered=True, notes=[*split.notes, told])
    return answered(
        split, backbone, config, processes, folder / FOLDER / "answered", start, progress
    )


def train_adapter(
    config: FinetuneConfig,
    images: Images,
    labels: Labels | None,
    out: str | os.PathLike[str],
    *,
    scribbles: Labels | None = None,
    unlabelled: Images | None = None,
    resume: bool = False,
    backbone: Backbone | None = None,
    start: Adapter | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> Adapter:
    """Train and write an adapter folder.

    Args:
        config: The recipe.
        images: Folder or list of files or volumes.
        labels: The same for the labels, matched by name; None where there are only scribbles.
        scribbles: Strokes in place of the training cases' labels.
        unlabelled: Images without labels.
        out: Adapter folder; checkpoints and logs go to `training` in it.
        resume: Go on from the last checkpoint in `out`.
        backbone: A loaded base; None loads `config.backbone`.
        start: Adapter to go on from, of the same base, rank and targets; None takes the recipe's.
            A coarse 3D view that it taught is kept; it answers strokes that are to be answered.
        progress: Called with "answer", "train" or "score", done, total.
        note: Called before training with each sentence on what was made of the files.

    Returns:
        The adapter as it was written and read again.

    Raises:
        FormatError: The data or the recipe cannot be used; nothing was trained.
        VolumeError: The same of voxels and grids.
        AdapterError: The folder is taken, or what is in it is of another run.
        WeightsError: The base cannot be loaded.
    """
    folder, start = Path(out), start or _named_start(config)
    _check_folder(folder, resume)
    sources = Sources(images, labels, scribbles, unlabelled)
    with prepared(config, sources, folder, backbone, start, progress) as run:
        if note is not None:
            for text in run.split.notes:
                note(text)
        if resume and run.trainer.restore() and _finished(run, folder):
            return read_adapter(folder)
        if run.processes.first:
            run.config.save(folder / "recipe.toml")
        run.trainer.run(_measure(run), progress)
        with run.trainer.weights.averaged(_kept(run)):
            adapter = run.learner.adapter(folder.resolve().name, run.info())
    if start is not None and start.view:
        info = replace(adapter.info, coarse_sha256=start.info.coarse_sha256)
        adapter = replace(adapter, info=info, view=start.view)
    if not run.processes.first:
        run.processes.wait()
        return adapter
    return _scored(write_adapter(adapter, folder), folder, run, progress)


def _scored(written: Adapter, folder: Path, run: Prepared, progress: Progress | None) -> Adapter:
    """An adapter folder with scores and a card."""
    cases, device = run.split.validation, run.processes.device
    view: dict[str, Any] = {}
    if run.config.three_d:
        written, view = _with_view(written, folder, run, progress)
    scores = final_scores(run.backbone, written, cases, run.config, device, progress)
    scores |= {"view_3d": view} if view else {}
    written = write_adapter(replace(written, info=replace(written.info, scores=scores)), folder)
    write_card(written, folder)
    run.processes.wait()
    return written


def _with_view(
    written: Adapter, folder: Path, run: Prepared, progress: Progress | None
) -> tuple[Adapter, dict[str, Any]]:
    """The adapter with a coarse 3D view that it taught, if that is better, and its scores."""
    view = load_coarse()
    taught = teach_view(
        run.backbone, written, run.split.training, run.split.validation, run.config,
        run.processes.device, view, progress,
    )  # fmt: skip
    if not taught.parameters:
        return written, taught.scores
    info = replace(written.info, coarse_sha256=view.sha256 or "")
    return write_adapter(replace(written, info=info, view=taught.parameters), folder), taught.scores


def plan_adapter(
    config: FinetuneConfig,
    images: Images,
    labels: Labels | None,
    backbone: Backbone | None = None,
    *,
    scribbles: Labels | None = None,
    unlabelled: Images | None = None,
) -> Plan:
    """What `train_adapter` would do; nothing is written.

    Raises:
        PromptsegError: As `train_adapter`.
    """
    sources = Sources(images, labels, scribbles, unlabelled)
    with prepared(config, sources, None, backbone, _named_start(config)) as run:
        return make_plan(run.trainer, run.split)


def _named_start(config: FinetuneConfig) -> Adapter | None:
    return None if config.start_folder is None else read_adapter(config.start_folder)


def _measure(run: Prepared) -> Any:
    validation = run.validation
    if validation is None:
        return None

    def measure(step: int) -> dict[str, float]:
        with run.trainer.weights.averaged():
            return validation(step)

    return measure


def _kept(run: Prepared) -> float:
    """Share of what was learned that goes into the adapter, from the process that writes it."""
    slices, validation = run.config.validation_slices, run.validation
    if run.split.strokes and validation is None:
        return 1.0  # strokes do not tell how well a box is answered
    if validation is None and slices and run.processes.first and run.trainer.step < SHORT_STEPS:
        validation = Validation(run.trainer.network, run.trainer.views.plain(), slices, None)
    return kept_share(run.trainer, validation)


def _check_folder(folder: Path, resume: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise AdapterError(f"{folder} is a file: give a folder for the adapter")
    holds = (folder / INFO).exists() or (folder / FOLDER / FILE).exists()
    if holds and not resume:
        raise AdapterError(
            f"{folder} holds an adapter or an unfinished training: go on with --resume, or give "
            "another folder"
        )


def _finished(run: Prepared, folder: Path) -> bool:
    """True if the folder holds the adapter of this very run, scores included."""
    if run.trainer.progress < 1 or not (folder / INFO).is_file():
        return False
    held = read_adapter(folder).info
    return held.steps == run.trainer.step and (folder / "README.md").is_file()
