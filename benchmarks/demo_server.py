"""A `promptseg demo` process to be measured from outside."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from gradio_client import Client

import promptseg as ps
from promptseg.datasets.phantom import abdomen_phantom
from promptseg.volume import write

START_S = 600.0


class DemoServer:
    """Starts `promptseg demo` on a free port; use it in a `with` block."""

    def __enter__(self) -> DemoServer:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "promptseg", "demo", "--port", "0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.address = self._address()
        threading.Thread(target=self._drain, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.peak = self.memory_mb(peak=True)
        self.process.terminate()
        self.process.wait(30)

    def _address(self) -> str:
        deadline = time.monotonic() + START_S
        assert self.process.stderr is not None
        while time.monotonic() < deadline:
            line = self.process.stderr.readline()
            if not line and self.process.poll() is not None:
                raise SystemExit("the demo did not start: see the lines above")
            found = re.search(r"http://\S+", line)
            if found:
                return found[0]
            print(line, end="", file=sys.stderr)
        raise SystemExit(f"the demo did not start within {START_S:.0f} s")

    def _drain(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            print(f"server: {line}", end="", file=sys.stderr)

    def memory_mb(self, peak: bool = False) -> float:
        """Resident memory of the server, now or at its highest."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", status)
        if found is None:
            raise SystemExit("memory is read from /proc: run this on Linux")
        return int(found[1]) / 1024


def connect(address: str, folder: Path) -> Client:
    """A client with a session of its own, patient with a busy machine."""
    slow = {"timeout": START_S}
    return Client(address, verbose=False, download_files=str(folder), httpx_kwargs=slow)


def write_ct(path: Path, shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """Write a synthetic CT; gives its labels."""
    spacing = (360.0 / shape[0], 280.0 / shape[1], 240.0 / shape[2])
    volume, labels, _ = abdomen_phantom(seed, shape, spacing)
    write(volume, path)
    return labels


def inside(labels: np.ndarray, label: int, axis: int = 2) -> ps.Point:
    """A click in the middle of an organ, on the slice where it is largest."""
    from scipy.ndimage import distance_transform_edt

    mask = np.moveaxis(labels == label, axis, 0)
    index = int(mask.sum((1, 2)).argmax())
    rows, columns = np.unravel_index(
        int(distance_transform_edt(mask[index]).argmax()), mask[index].shape
    )
    at = np.insert(np.array([rows, columns], float), axis, index)
    return ps.Point(tuple(at.tolist()))
