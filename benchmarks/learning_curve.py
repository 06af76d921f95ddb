"""Learning curve of an adapter: Dice over labelled cases, beside what a user would do instead.

    OMP_NUM_THREADS=1 python benchmarks/learning_curve.py --minutes 20 --parallel 2 \\
        --data ../shared/data/left_atrium --out runs/curve

For 1, 4, 8 and 16 cases and the same minutes each: a LoRA adapter, the same with cases 17-56 as
unlabelled ones, full fine-tuning and decoder-only training of the default model, and MONAI's
BasicUNet from scratch. Measured on the
validation cases with a box on slices and with no prompt in 3D (the U-Net knows no prompt).
Every cell is a file; a second call goes on with the cells that are missing, and in the middle of
an adapter's training. `--cells adapter:8 unet:8` runs some of them, `--figure` only draws what is
there. Two cells at once, each in one process with one thread, are the best use of two cores:
`--minutes` are then those of one core. `--processes 2` trains one cell on both instead.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from promptseg.adapters import Adapter, base_digest, read_adapter
from promptseg.backbones import load_backbone
from promptseg.backbones.base import BackboneSpec
from promptseg.datasets.cohort import open_cohort
from promptseg.evaluate import evaluate
from promptseg.finetune.case_loading import organ_cases
from promptseg.finetune.config import FinetuneConfig, load_recipe
from promptseg.finetune.named_losses import loss_by_name
from promptseg.finetune.organ_case import OrganCase
from promptseg.finetune.running import train_adapter
from promptseg.finetune.views import ViewMaker
from promptseg.inference.device import autocast, choose_precision
from promptseg.io.atomic import atomic_path
from promptseg.session import Segmenter
from promptseg.volume.intensity import Window, normalise
from promptseg.volume.slicing import Frame, Region

RECIPE = Path(__file__).parents[1] / "adapters" / "left_atrium" / "recipe.toml"
METHODS: dict[str, dict[str, Any]] = {
    "adapter": {},
    "semi": {"objective": "semi", "unlabelled_cases": "17-56"},
    "full": {"encoder": "full", "decoder": "full", "rate": 3e-4},
    "decoder": {"encoder": "frozen", "decoder": "full", "rate": 6e-4},
    "unet": {},
}
NAMES = {
    "adapter": "LoRA adapter",
    "semi": "adapter with unlabelled cases",
    "full": "full fine-tuning",
    "decoder": "decoder only",
    "unet": "BasicUNet from scratch",
}
COLOURS = {
    "adapter": "#c0392b",
    "semi": "#1e8449",
    "full": "#2471a3",
    "decoder": "#7d6608",
    "unet": "#566573",
}
COUNTS = (8, 16, 4, 1)
FIRST, LAST = 57, 68
UNET_SIZE = 192
BESIDE = 1.05


def validation(chosen: argparse.Namespace) -> tuple[int, int]:
    """First and last of the cases that are measured."""
    return FIRST, min(LAST, FIRST + chosen.eval_cases - 1)


def recipe(chosen: argparse.Namespace, method: str, cases: int) -> FinetuneConfig:
    """The shipped recipe with another number of cases and minutes."""
    images = str((chosen.data / "images").resolve())
    return load_recipe(
        RECIPE,
        images=images,
        unlabelled=images if method == "semi" else None,
        labels=str((chosen.data / "labels").resolve()),
        cases=f"1-{cases}",
        validation_cases=f"{FIRST}-{LAST}",
        minutes=chosen.minutes,
        backbone=chosen.model,
        device=chosen.device,
        final_slices=0,
        validation_slices=0,
        # What is usual now, where the recipe says how the shipped adapter was made; the coarse view
        # has no part in either score.
        optimiser="auto",
        batch=4,
        three_d=False,
        **METHODS[method],
    )


def point(chosen: argparse.Namespace, method: str, cases: int) -> dict[str, Any]:
    """Train and measure one point."""
    began = time.perf_counter()
    config = recipe(chosen, method, cases)
    scores = (unet_scores if method == "unet" else adapter_scores)(chosen, config, method, cases)
    return {
        "method": method,
        "cases": cases,
        "minutes": chosen.minutes,
        **scores,
        "seconds_in_all": round(time.perf_counter() - began, 1),
        "device": chosen.device,
        "processes": chosen.processes,
        "eval_cases": list(validation(chosen)),
    }


def adapter_scores(
    chosen: argparse.Namespace, config: FinetuneConfig, method: str, cases: int
) -> dict[str, Any]:
    """Dice with a box on slices and with no prompt in 3D."""
    folder = chosen.out / f"{method}_{cases}"
    adapter = trained(config, folder, chosen.processes)
    segmenter = Segmenter(load_backbone(config.backbone), chosen.device)
    segmenter.adapters.add(adapter)
    segmenter.adapters.use(adapter.name)
    scores: dict[str, Any] = {"steps": adapter.info.steps, "base": adapter.info.base_sha256}
    for name, protocol, dims in (("box_2d", "box", "2d"), ("auto_3d", "auto", "3d")):
        report = evaluate(
            segmenter,
            config.images or "",
            config.labels or "",
            protocol,
            label=1,
            dims=dims,
            cases=validation(chosen),
            slices=chosen.slices,
        )
        scores[name] = report.summary["dice"]
    return scores


def trained(config: FinetuneConfig, folder: Path, processes: int) -> Adapter:
    """Train here, or in several processes; go on where an earlier call stopped."""
    resume = (folder / "training" / "last.pt").exists()
    if processes == 1:
        return train_adapter(
            config,
            config.images or "",
            config.labels or "",
            folder,
            unlabelled=config.unlabelled,
            resume=resume,
        )
    recipe = folder.with_name(f"{folder.name}.toml")
    config.save(recipe)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               "--nproc-per-node", str(processes), "-m", "promptseg", "finetune", str(recipe),
               "-o", str(folder), *(["--resume"] if resume else [])]  # fmt: skip
    subprocess.run(command, check=True)
    return read_adapter(folder)


def unet_scores(
    chosen: argparse.Namespace, config: FinetuneConfig, method: str, cases: int
) -> dict[str, Any]:
    """3D Dice of MONAI's BasicUNet on slices with their neighbours."""
    images, labels = config.images or "", config.labels or ""
    training = organ_cases(open_cohort(images, labels, 1, (1, cases)), [1], config)
    held = organ_cases(open_cohort(images, labels, 1, validation(chosen)), [1], config)
    network, steps = train_unet(training, config, chosen.device, chosen.processes)
    dice = [unet_dice(network, case, chosen.device) for case in held]
    summary = {"mean": float(np.mean(dice)), "std": float(np.std(dice)), "n": len(dice)}
    return {"steps": steps, "auto_3d": summary}


def train_unet(
    cases: list[OrganCase], config: FinetuneConfig, device: str, threads: int
) -> tuple[nn.Module, int]:
    """Train from scratch on whole slices with the augmentation that the adapter gets."""
    from monai.networks.nets import BasicUNet

    torch.manual_seed(config.seed)
    torch.set_num_threads(threads)
    precision = choose_precision("auto", torch.device(device))
    network = BasicUNet(spatial_dims=2, in_channels=3, out_channels=1).to(device)
    spec = BackboneSpec("unet", "unet", UNET_SIZE, UNET_SIZE, "2.5d", True, propagates="mask")
    views = ViewMaker(cases, 1, spec, replace(config, encoder="lora", whole=1.0))
    loss = loss_by_name(config.loss)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=config.weight_decay)
    began, step, budget = time.monotonic(), 0, 60 * (config.minutes or 0)
    network.train()
    while (done := (time.monotonic() - began) / budget) < 1:
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * (0.02 + 0.49 * (1 + np.cos(np.pi * done)))
        batch = [views[n] for n in range(step * config.batch, (step + 1) * config.batch)]
        pixels = torch.stack([view.image for view in batch]).to(device)
        target = torch.stack([view.masks[0] for view in batch]).to(device)
        with autocast(torch.device(device), precision):
            logits = network(pixels)[:, 0]
        optimiser.zero_grad()
        loss(logits.float(), target).mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        step += 1
    return network.eval(), step


@torch.inference_mode()
def unet_dice(network: nn.Module, case: OrganCase, device: str) -> float:
    """3D Dice of one case, of the largest body."""
    data = normalise(case.image, Window("fixed", *case.window, "case"))
    x0, y0, x1, y1 = (int(edge) for edge in case.body)
    spacing = (1.0, *case.spacing)
    frame = Frame(0, Region((y0, y1), (x0, x1)), data.shape, spacing, UNET_SIZE)
    mask = np.zeros(data.shape, bool)
    for start in range(0, len(data), 8):
        indices = list(range(start, min(start + 8, len(data))))
        pixels: Tensor = frame.extract(data, indices, "2.5d").to(device)
        logits = network(pixels)[:, 0].float().cpu()
        mask[start : start + len(indices), y0:y1, x0:x1] = (frame.restore(logits) > 0).numpy()
    bodies, count = ndimage.label(mask, np.ones((3, 3, 3)))
    if count > 1:
        mask = bodies == 1 + int(np.argmax(np.bincount(bodies.ravel())[1:]))
    truth = case.labels == 1
    return float(2 * (mask & truth).sum() / max(1, mask.sum() + truth.sum()))


def collect(out: Path) -> list[dict[str, Any]]:
    """All points there are, by method and cases."""
    points = [json.loads(path.read_text()) for path in sorted(out.glob("point_*.json"))]
    order = list(METHODS)
    return sorted(points, key=lambda p: (order.index(p["method"]), p["cases"]))


def report(out: Path) -> None:
    """Write learning_curve.json, .csv and .png from the points there are."""
    points = collect(out)
    with atomic_path(out / "learning_curve.json") as temporary:
        temporary.write_text(json.dumps({"points": points}, indent=2) + "\n")
    with atomic_path(out / "learning_curve.csv") as temporary:
        temporary.write_text(rows(points))
    if points:
        figure(points, out / "learning_curve.png")


def rows(points: list[dict[str, Any]]) -> str:
    """One line of CSV for each method, number of cases and prompt."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    told = ["method", "cases", "minutes", "processes", "steps"]
    writer.writerow([*told, "prompt", "dice", "std", "n"])
    for point in points:
        for prompt in ("box_2d", "auto_3d"):
            if prompt in point:
                dice = point[prompt]
                own = [point[key] for key in told]
                writer.writerow([*own, prompt, dice["mean"], dice["std"], dice["n"]])
    return text.getvalue()


def figure(points: list[dict[str, Any]], path: Path) -> None:
    """Dice over cases, with a box and with no prompt."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, panels = pyplot.subplots(1, 2, figsize=(9, 3.6))
    titles = {"box_2d": "box, slice by slice", "auto_3d": "no prompt, 3D"}
    for panel, (key, title) in zip(panels, titles.items(), strict=True):
        for place, method in enumerate(METHODS):
            own = [p for p in points if p["method"] == method and key in p]
            if own:
                panel.errorbar(
                    [p["cases"] * BESIDE ** (place - 2) for p in own],
                    [p[key]["mean"] for p in own],
                    [p[key]["std"] for p in own],
                    marker="o",
                    capsize=3,
                    color=COLOURS[method],
                    label=NAMES[method],
                )
        panel.set(xscale="log", xlabel="labelled cases", title=title, xlim=(0.8, 20))
        panel.set_xticks([1, 4, 8, 16], ["1", "4", "8", "16"])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set(ylabel="Dice", ylim=(0.8, 0.95))
    panels[1].set(ylim=(0.4, 1))
    panels[1].legend(frameon=False, loc="lower right")
    minutes = sorted({p["minutes"] for p in points})
    counts = sorted({p["auto_3d"]["n"] for p in points})
    drawing.suptitle(
        f"left atrium, {', '.join(f'{m:g}' for m in minutes)} minutes a point; "
        f"mean and standard deviation over {', '.join(map(str, counts))} cases",
        fontsize="medium",
    )
    drawing.tight_layout()
    drawing.savefig(path, dpi=150)


def cell(text: str) -> tuple[str, int]:
    """Method and number of cases of `METHOD:CASES`."""
    method, _, cases = text.partition(":")
    if method not in METHODS or not cases.isdecimal() or int(cases) not in COUNTS:
        raise argparse.ArgumentTypeError(
            f"{text!r}: give one of {', '.join(METHODS)}, a colon and one of {sorted(COUNTS)}"
        )
    return method, int(cases)


def file_of(out: Path, method: str, cases: int) -> Path:
    return out / f"point_{method}_{cases}.json"


def run_cell(chosen: argparse.Namespace, method: str, cases: int) -> None:
    """Train, measure and keep one point."""
    found = point(chosen, method, cases)
    with atomic_path(file_of(chosen.out, method, cases)) as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found), flush=True)


def run_cells(chosen: argparse.Namespace, cells: list[tuple[str, int]]) -> None:
    """One process a cell, `--parallel` at once, with the options of this call."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} if chosen.parallel > 1 else None

    def start(which: tuple[str, int]) -> int:
        name = f"{which[0]}:{which[1]}"
        command = [sys.executable, __file__, *sys.argv[1:], "--alone", name]
        return subprocess.run(command, check=False, env=environment).returncode

    with ThreadPoolExecutor(chosen.parallel) as pool:
        codes = list(pool.map(start, cells))
    failed = [f"{m}:{n}" for (m, n), code in zip(cells, codes, strict=True) if code]
    if failed:
        raise SystemExit(f"failed: {' '.join(failed)}; call again to go on with them")


def same_base(chosen: argparse.Namespace) -> None:
    """Points of two bases in one curve would mean nothing."""
    known = {point["base"] for point in collect(chosen.out) if "base" in point}
    if known and known != {base_digest(load_backbone(chosen.model))}:
        raise SystemExit(f"{chosen.out} holds points of another base: give another --out")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/left_atrium"))
    parser.add_argument("--out", type=Path, default=Path("runs/curve"))
    parser.add_argument("--cells", nargs="+", type=cell, metavar="METHOD:CASES")
    parser.add_argument("--minutes", type=float, default=20.0, help="of training, each cell")
    parser.add_argument("--eval-cases", type=int, default=LAST - FIRST + 1)
    parser.add_argument("--slices", type=int, default=12, help="a case, of the box score")
    parser.add_argument("--model", default="default")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--parallel", type=int, default=1, help="cells at once")
    parser.add_argument("--processes", type=int, default=1, help="that train one adapter")
    parser.add_argument("--figure", action="store_true", help="only draw what is there")
    parser.add_argument("--alone", type=cell, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.alone:
        run_cell(chosen, *chosen.alone)
        return
    if not chosen.figure:
        same_base(chosen)
        cells = chosen.cells or [(method, count) for count in COUNTS for method in METHODS]
        run_cells(chosen, [one for one in cells if not file_of(chosen.out, *one).exists()])
    report(chosen.out)


if __name__ == "__main__":
    main()
