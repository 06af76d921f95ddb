"""A folder of two tiny cases and a tiny model, and the benchmark scripts as modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
from support import discs, tiny_network

from promptseg.backbones.default import save_default

SHAPE = (32, 30, 5)
SPACING = np.diag([1.0, 1.0, 4.0, 1.0])


def write_tiny_cohort(folder: Path) -> Path:
    """Write `images` and `labels` of two cases, and a model; give the model's file."""
    rng = np.random.default_rng(0)
    for case in (1, 2):
        truth = discs(SHAPE, 2, dict.fromkeys(range(5), (15 + case, 14, 7)))
        image = (truth * 80 + rng.normal(60, 15, SHAPE)).astype(np.float32)
        for kind, data in (("images", image), ("labels", truth.astype(np.uint8))):
            path = folder / kind / f"patient00{case}_frame01.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(data, SPACING), path)
    save_default(tiny_network(), folder / "tiny.safetensors", {})
    return folder / "tiny.safetensors"


def load_benchmark(name: str) -> ModuleType:
    """The script benchmarks/NAME.py as a module."""
    path = Path(__file__).resolve().parents[1] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
