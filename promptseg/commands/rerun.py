"""`promptseg rerun`: run a manifest again and compare the masks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.commands.job import Choices, Run, run_job
from promptseg.commands.outputs import check_mask_format, check_outputs, place, staged
from promptseg.commands.parsing import add_json, note, print_json
from promptseg.errors import FormatError, PromptsegError, WeightsError

if TYPE_CHECKING:
    from promptseg.volume import Volume


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("manifest", metavar="MANIFEST_JSON", type=Path, help="from --report")
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, help="keep the new mask here")
    parser.add_argument("--format", metavar="NAME", help="format of OUT (default: by its suffix)")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run again; 0 if the mask is the same, 1 if it differs."""
    from promptseg.prompts.types import PromptSet
    from promptseg.report import load_manifest

    manifest = load_manifest(arguments.manifest)
    paths = {} if arguments.output is None else {"mask": arguments.output}
    check_outputs(paths)
    for path in paths.values():
        check_mask_format(path, arguments.format)
    volume = _input(manifest, arguments.manifest)
    prompts = PromptSet.from_json(manifest["prompts"], str(arguments.manifest))
    prompts.validate(volume)
    _check_weights(manifest)
    done = run_job(volume, prompts, _choices(manifest))
    with staged(paths) as temporary:
        for path in temporary.values():
            done.result.save(path, arguments.format)
    return _compare(done, manifest, arguments.json)


def _input(manifest: dict[str, Any], source: Path) -> Volume:
    from promptseg.volume import read

    recorded = manifest["input"].get("path")
    if recorded is None:
        raise FormatError(f"{source}: the image was made in memory and has no file to read again")
    place, told = _place(recorded, source), manifest["settings"].get("modality")
    volume = read(place, series=manifest["input"].get("series"), modality=told)
    if volume.sha256 != manifest["input"]["sha256"]:
        raise FormatError(
            f"{volume.source} is not the image of {source}: its voxels or its affine have changed"
        )
    return volume


def _place(recorded: str, source: Path) -> Path | str:
    """Where the image is: as recorded, else beside the manifest."""
    found, beside = place(recorded), source.parent / Path(recorded).name
    moved = isinstance(found, Path) and beside.exists() and not found.exists()
    return beside if moved else found


def _check_weights(manifest: dict[str, Any]) -> None:
    from promptseg.adapters import adapter_digest
    from promptseg.report import package_version

    then, now = manifest.get("versions", {}).get("torch"), package_version("torch")
    if then != now:
        note(f"torch was {then}, is {now}: the last digits may differ")
    for adapter in manifest.get("adapters", []):
        if adapter_digest(adapter["name"]) != adapter["sha256"]:
            raise WeightsError(f"adapter {adapter['name']} is not the one of the manifest")


def _choices(manifest: dict[str, Any]) -> Choices:
    try:
        settings = manifest["settings"]
        report = manifest["result"].get("report", {})
        corrector, coarse, step, ranking = (
            report.get(n) for n in ("corrector", "coarse", "step", "ranking")
        )
        return Choices(
            model=manifest["model"]["name"],
            adapters=tuple(adapter["name"] for adapter in manifest.get("adapters", [])),
            axis=str(settings["axis"]),
            window=settings["window"],
            propagate=settings["propagate"],
            consistency=settings.get("consistency", "none"),
            stop=settings.get("stop", "auto"),
            device=manifest["device"],
            precision=manifest["precision"],
            sha256=manifest["model"].get("sha256"),
            text_model=settings.get("text_model"),
            corrector=settings.get("corrector", None if corrector is None else "auto"),
            corrector_sha256=corrector,
            coarse=None if coarse is None else "auto",
            coarse_sha256=coarse,
            step=None if step is None else "auto",
            step_sha256=step,
            ranking=None if ranking is None else "auto",
            ranking_sha256=ranking,
            postprocess=tuple(settings.get("postprocess", ())),
            modality=settings.get("modality"),
        )
    except (KeyError, TypeError) as error:
        raise PromptsegError(f"the manifest is damaged: {error!r}") from error


def _compare(done: Run, manifest: dict[str, Any], as_json: bool) -> int:
    same = done.result.sha256 == manifest["result"]["sha256"]
    found = {"same": same, "sha256": done.result.sha256, "expected": manifest["result"]["sha256"]}
    voxels = None if same else _differing(done, manifest)
    if as_json:
        print_json({**found, "differing_voxels": 0 if same else voxels})
    elif same:
        print("same mask")
    else:
        print("the mask differs" + ("" if voxels is None else f" in {voxels} voxels"))
    return int(not same)


def _differing(done: Run, manifest: dict[str, Any]) -> int | None:
    """Voxels that differ from the mask file of the first run, None if it is not there."""
    from promptseg.volume import read_labels

    try:
        before = read_labels(manifest["outputs"]["mask"]["path"], done.volume)
    except (PromptsegError, KeyError, TypeError):
        return None
    return int((before.data != done.result.data).sum())
