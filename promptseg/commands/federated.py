"""`promptseg federated`: adapters of several sites become one; images stay where they are."""

from __future__ import annotations

import argparse
from pathlib import Path

from promptseg.commands.parsing import UsageError, add_json, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions and their options."""
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    app = actions.add_parser("app", help="write the folder that `flwr run` sends to the server")
    app.add_argument("folder", metavar="DIR", type=Path)
    app.add_argument("--adapter", metavar="DIR", type=Path, required=True, help="to begin with")
    app.add_argument("--rounds", metavar="N", type=int, default=5)
    app.add_argument("--min-sites", metavar="N", type=int, default=2, help="that a round needs")
    app.add_argument("--steps", metavar="N", type=int, default=100, help="of a round at a site")
    app.add_argument("--batch", metavar="N", type=int, default=8)
    app.add_argument("--rate", metavar="R", type=float, default=3e-4, help="learning rate")
    app.add_argument("--timeout", metavar="S", type=float, default=7200.0, help="of a round")
    app.add_argument(
        "--max-norm", metavar="X", type=float, default=0.0, help="refuse updates farther away"
    )
    app.add_argument(
        "-o", "--output", metavar="DIR", type=Path, required=True, help="on the server"
    )
    mean = actions.add_parser("average", help="the mean of adapter folders, without a server")
    mean.add_argument("adapters", metavar="ADAPTER", nargs="+", type=Path)
    mean.add_argument("--start", metavar="ADAPTER", type=Path, required=True,
                      help="what all of them went on from")  # fmt: skip
    mean.add_argument("--max-norm", metavar="X", type=float, help="refuse those farther away")
    mean.add_argument("-o", "--output", metavar="DIR", type=Path, required=True)
    spent = actions.add_parser("epsilon", help="the privacy that a site has spent")
    spent.add_argument("--noise", metavar="X", type=float, required=True)
    spent.add_argument("--rounds", metavar="N", type=int, required=True)
    spent.add_argument("--delta", metavar="D", type=float, default=1e-5)
    for action in (app, mean, spent):
        add_json(action)


def run(arguments: argparse.Namespace) -> int:
    """Do one action."""
    return {"app": _app, "average": _average, "epsilon": _epsilon}[arguments.action](arguments)


def _app(arguments: argparse.Namespace) -> int:
    from promptseg.active.federated.app import write_app
    from promptseg.adapters import read_adapter

    if arguments.rounds < 1 or arguments.min_sites < 1 or arguments.steps < 1:
        raise UsageError("--rounds, --min-sites and --steps are at least 1")
    read_adapter(arguments.adapter)
    names = ("rounds", "min_sites", "steps", "batch", "rate", "timeout", "max_norm")
    settings = {name: getattr(arguments, name) for name in names}
    path = write_app(arguments.folder, arguments.adapter, arguments.output, **settings)
    if arguments.json:
        print_json({"app": str(path)})
    else:
        print(f"{path} written: start it with `flwr run {arguments.folder} CONNECTION --stream`")
    return 0


def _average(arguments: argparse.Namespace) -> int:
    from promptseg.active.federated.averaging import Reply, average
    from promptseg.active.federated.update import update_of, with_update
    from promptseg.adapters import read_adapter, write_adapter

    start = read_adapter(arguments.start)
    held = [(str(path), read_adapter(path)) for path in arguments.adapters]
    replies = [Reply(name, update_of(one), len(one.info.training_cases) or 1) for name, one in held]
    found = average(replies, update_of(start), arguments.max_norm)
    if not found.used:
        raise UsageError("; ".join(f"{name}: {why}" for name, why in found.refused.items()))
    write_adapter(with_update(start, found.update), arguments.output)
    told = {"output": str(arguments.output), "used": found.used, "refused": found.refused}
    if arguments.json:
        print_json(told)
        return 0
    for name, why in found.refused.items():
        print(f"left out {name}: {why}")
    print(f"{arguments.output} written: the mean of {len(found.used)} adapters by their cases")
    return 0


def _epsilon(arguments: argparse.Namespace) -> int:
    from promptseg.active.federated.privacy import Privacy

    found = Privacy(1.0, arguments.noise).epsilon(arguments.rounds, arguments.delta)
    if arguments.json:
        print_json({"epsilon": None if found == float("inf") else found, "delta": arguments.delta})
    else:
        print(f"epsilon {found:.3g} at delta {arguments.delta:g} after {arguments.rounds} rounds")
    return 0
