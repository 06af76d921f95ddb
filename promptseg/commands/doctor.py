"""`promptseg doctor`: what is installed, which device, where weights are found."""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from importlib import import_module, metadata
from typing import Any

from promptseg.commands.parsing import add_json, print_json
from promptseg.errors import PromptsegError

_REQUIREMENT = re.compile(r"([A-Za-z0-9_.-]+)[^;]*(?:;.*extra == ['\"](\w+)['\"])?")
_MUST_LOAD = ("torch", "torchvision", "transformers", "segment_anything", "peft", "nibabel")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Look, report, and fail if something that every run needs is broken."""
    problems = _load_problems()
    found = {
        "system": _system(),
        "packages": _packages(),
        "compute": {} if problems else _compute(),
        "weights": _weights(problems),
        "problems": problems,
    }
    if arguments.json:
        print_json(found)
    else:
        _show(found)
    return int(bool(problems))


def _load_problems() -> list[str]:
    problems = []
    for name in _MUST_LOAD:
        try:
            import_module(name)
        except Exception as error:  # a broken compiled library raises anything
            problems.append(f"{name} does not load: {type(error).__name__}: {error}")
    return problems


def _system() -> dict[str, Any]:
    return {
        "promptseg": _version("promptseg"),
        "python": f"{platform.python_version()} at {sys.executable}",
        "system": platform.platform(),
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
    }


def _packages() -> dict[str, dict[str, str | None]]:
    """Version of each requirement by extra; None where it is not installed."""
    groups: dict[str, dict[str, str | None]] = {}
    for requirement in metadata.requires("promptseg") or []:
        match = _REQUIREMENT.match(requirement)
        conditional = "python_version" in requirement
        if match and match[1] != "promptseg" and not conditional:
            groups.setdefault(match[2] or "core", {})[match[1]] = _version(match[1])
    return groups


def _version(name: str) -> str | None:
    from promptseg.report import package_version

    return package_version(name)


def _compute() -> dict[str, Any]:
    import torch

    from promptseg.inference.device import choose_device, choose_precision

    device = choose_device("auto")
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "device": str(device),
        "precision": choose_precision("auto", device),
        "gpus": gpus,
        "threads": torch.get_num_threads(),
    }


def _weights(problems: list[str]) -> dict[str, Any]:
    from promptseg.weights.registry import locate, registry, search_path, verify

    try:
        here = {name: str(path) for name in registry() if (path := locate(name))}
        problems += [f"{one.path} is damaged" for one in verify() if one.status == "mismatch"]
        if "default" not in here:
            problems.append("the default model is missing: install promptseg again")
    except PromptsegError as error:
        here = {}
        problems.append(str(error))
    folders = {str(folder): folder.is_dir() for folder in search_path()}
    return {"searched": folders, "here": here}


def _show(found: dict[str, Any]) -> None:
    for key, value in {**found["system"], **found["compute"]}.items():
        print(f"{key + ':':<11} {', '.join(value) or 'none' if isinstance(value, list) else value}")
    for extra, packages in found["packages"].items():
        shown = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
        absent = ", ".join(name for name, version in packages.items() if not version)
        print(f"{extra + ':':<11} {shown or 'none of it'}")
        if absent:
            print(f"{'':<11} not installed: {absent}{_remedy(extra)}")
    for folder, exists in found["weights"]["searched"].items():
        print(f"{'weights in:':<11} {folder}{'' if exists else ' (does not exist yet)'}")
    for name, path in found["weights"]["here"].items():
        print(f"{'':<11} {name}: {path}")
    for problem in found["problems"]:
        print(f"problem:    {problem}")
    print("problems found" if found["problems"] else "all that promptseg needs works")


def _remedy(extra: str) -> str:
    return "" if extra == "core" else f" (pip install 'promptseg[{extra}]')"
