"""Flower's own server and clients on loopback, one of them killed and started again."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from active_kit import write_place

from promptseg.active.federated.app import write_app
from promptseg.active.federated.update import distance, update_of
from promptseg.adapters import read_adapter

pytestmark = pytest.mark.skipif(
    find_spec("flwr") is None, reason="flwr is not installed: promptseg[federated]"
)
ROOT = Path(__file__).resolve().parents[3]
BINARIES = Path(sys.executable).parent
PATIENCE_S = 900.0


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


class Federation:
    """A server and clients as other programs; all end with it."""

    def __init__(self, place: Path) -> None:
        self.place, self.port = place, free_port()
        self.running: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "FLWR_HOME": str(place / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{BINARIES}{os.pathsep}{os.environ['PATH']}",
        }

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """A program of Flower's, with a log beside the data."""
        log = (self.place / f"{name}.log").open("ab")
        program = str(BINARIES / arguments[0])
        process = subprocess.Popen(
            [program, *arguments[1:]], env=self.environment, stdout=log, stderr=log, cwd=self.place,
            start_new_session=True,
        )  # fmt: skip
        self.running.append(process)
        return process

    def server(self) -> None:
        self.start("superlink", "flower-superlink", "--insecure", "--port", str(self.port),
                   "--disable-runtime-dependency-installation")  # fmt: skip
        wait(lambda: listening(self.port), "the server does not listen")

    def client(self, name: str, cases: str) -> subprocess.Popen[bytes]:
        config = {
            "images": self.place / "images",
            "labels": self.place / "labels",
            "work": self.place / f"work_{name}",
            "cases": cases,
            "device": "cpu",
            "model": self.place / "tiny.safetensors",
        }
        told = " ".join(f'{key}="{value}"' for key, value in config.items())
        return self.start(name, "flower-supernode", "--insecure", "--superlink",
                          f"127.0.0.1:{self.port}", "--port", str(free_port()),
                          "--node-config", told)  # fmt: skip

    def submit(self, app: Path) -> None:
        home = self.place / "flwr"
        home.mkdir(exist_ok=True)
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{self.port}"'
            "\ninsecure = true\n"
        )
        done = subprocess.run([str(BINARIES / "flwr"), "run", str(app), "here"],
                              env=self.environment, capture_output=True, text=True, timeout=300,
                              check=False)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def end(self) -> None:
        for process in self.running:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a program and what it started, of its own session alone."""
    if process.poll() is None:
        os.killpg(process.pid, 9)
        process.wait()


def listening(port: int) -> bool:
    with socket.socket() as held:
        held.settimeout(1)
        return held.connect_ex(("127.0.0.1", port)) == 0


def wait(until, complaint: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not until():
        assert time.monotonic() < end, complaint
        time.sleep(0.5)


def rounds(place: Path) -> list[dict[str, object]]:
    path = place / "everyone" / "federated.json"
    return json.loads(path.read_text())["rounds"] if path.is_file() else []


@pytest.fixture
def federation(tmp_path):
    held = Federation(write_place(tmp_path))
    yield held
    held.end()


def test_two_sites_one_of_which_dies_and_comes_back(federation):
    place = federation.place
    settings = {"rounds": 4, "min_sites": 1, "steps": 1, "batch": 1, "timeout": 120.0}
    app = place / "app"
    write_app(app, place / "source", place / "everyone", half=0.0, precision="fp32", **settings)
    federation.server()
    federation.client("north", "1-2")
    south = federation.client("south", "3-4")
    time.sleep(10)
    federation.submit(app)
    wait(lambda: len(rounds(place)) >= 1, "no round ended")
    stop(south)
    wait(lambda: len(rounds(place)) >= 2, "the round did not end without a site")
    federation.client("south", "3-4")
    wait(lambda: (place / "everyone" / "promptseg.json").is_file(), "it did not come to its end")
    told = rounds(place)
    assert len(told) == 4
    assert all(sum(row["used"].values()) >= 2 for row in told)
    assert max(len(row["used"]) for row in told) == 2
    found = read_adapter(place / "everyone")
    assert distance(update_of(found), update_of(read_adapter(place / "source"))) > 0
