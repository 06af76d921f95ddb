"""`promptseg adapters`: list, info, merge."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from promptseg.commands.parsing import add_json, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the three actions."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    def action(name: str, summary: str, act: Any) -> argparse.ArgumentParser:
        described = f"{summary[0].upper()}{summary[1:]}."
        sub = actions.add_parser(name, help=summary, description=described)
        sub.set_defaults(act=act)
        add_json(sub)
        return sub

    action("list", "every adapter known by name", _list)
    action("info", "all that is known of one adapter", _info).add_argument("name", metavar="NAME")
    merge = action("merge", "write its base with the adapter melted in", _merge)
    merge.add_argument("name", metavar="NAME")
    merge.add_argument("-o", "--output", metavar="FILE", type=Path, required=True)
    merge.add_argument("--model", metavar="NAME|PATH", help="base; default as the adapter says")


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen action."""
    return int(arguments.act(arguments))


def _list(arguments: argparse.Namespace) -> int:
    from promptseg.adapters.files import INFO, list_adapters
    from promptseg.adapters.info import read_info

    infos = {name: read_info(folder / INFO) for name, folder in list_adapters().items()}
    if arguments.json:
        rows = [{"name": name, "organ": i.organ, "backbone": i.backbone, "labels":
                 {str(k): v for k, v in i.labels.items()}, "scores": dict(i.scores),
                 "words": {str(k): list(v) for k, v in i.vocabulary.items()}}
                for name, i in infos.items()]  # fmt: skip
        print_json({"adapters": rows})
    elif not infos:
        print("no adapter is installed: `promptseg finetune` makes one")
    else:
        width = max(len(name) for name in infos)
        for name, info in infos.items():
            labels = ", ".join(f"{label} {word}" for label, word in info.labels.items())
            print(f"{name.ljust(width)}  {info.backbone}  {labels}")
            for words in info.vocabulary.values():
                print(f"{' ' * width}  --text {_shown(words)}")
    return 0


def _shown(words: tuple[str, ...], most: int = 12) -> str:
    """The first of some words."""
    return ", ".join(words[:most]) + (f", and {len(words) - most} more" if words[most:] else "")


def _info(arguments: argparse.Namespace) -> int:
    from promptseg.adapters import read_adapter

    adapter = read_adapter(arguments.name)
    numbers = (*adapter.lora.values(), *adapter.tokens.values(), *adapter.deltas.values())
    record = {
        "name": adapter.name,
        **asdict(adapter.info),
        "labels": {str(label): word for label, word in adapter.info.labels.items()},
        "label_words": {str(k): list(words) for k, words in adapter.info.vocabulary.items()},
        "folder": str(adapter.folder),
        "sha256": adapter.digest,
        "parameters": sum(tensor.numel() for tensor in numbers),
    }
    if arguments.json:
        print_json(record)
        return 0
    for key, value in record.items():
        if key not in ("settings", "versions", "files"):
            shown = ", ".join(value) if isinstance(value, tuple) else value
            print(f"{key + ':':<17} {'unknown' if shown is None else shown}")
    return 0


def _merge(arguments: argparse.Namespace) -> int:
    from promptseg.adapters import AdapterStack, read_adapter, save_merged
    from promptseg.backbones import load_backbone

    adapter = read_adapter(arguments.name)
    stack = AdapterStack(load_backbone(arguments.model or adapter.info.backbone))
    stack.add(adapter)
    stack.use(adapter.name)
    out = save_merged(stack, arguments.output)
    if arguments.json:
        print_json({"output": str(out)})
    else:
        print(f"{out} (answers prompts; the tokens for no prompt stay with the adapter)")
    return 0
