"""Click to mask, as a client of the web demo sees it, and what the server needs for it.

python benchmarks/demo_latency.py [--slices 100] [--side 256] [--clicks 20]

The first click on a slice encodes it and is printed by itself; the others are clicks on slices
that were encoded before, before and after the 3D mask is there. Aims: under 300 ms, and under
1.5 GB of memory for 100 slices of 256 x 256.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from demo_server import DemoServer, connect, inside, write_ct
from gradio_client import Client, handle_file

AIM_MS, AIM_MB = 300.0, 1500.0
KIDNEY = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--clicks", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, DemoServer() as server:
        path = Path(folder) / "ct.nii.gz"
        labels = write_ct(path, (options.side, options.side, options.slices), seed=1)
        client = connect(server.address, Path(folder))
        print(f"server before any image: {server.memory_mb():.0f} MB")
        opened, _ = timed(lambda: client.predict(handle_file(str(path)), api_name="/open"))
        print(f"open {options.side} x {options.side} x {options.slices}: {opened:.2f} s")
        measure(client, inside(labels, KIDNEY).at, options.clicks)
    memory = server.peak
    print(f"server at its highest: {memory:.0f} MB (aim: below {AIM_MB:.0f} MB: "
          f"{'reached' if memory < AIM_MB else 'missed'})")  # fmt: skip


def measure(client: Client, at: tuple[float, ...], clicks: int) -> None:
    """Time clicks before and after propagation."""
    i, j, k = at

    def click(n: int, positive: bool = True) -> float:
        place = [i + n % 3 - 1, j + n // 3 % 3 - 1, k]
        seconds, _ = timed(lambda: client.predict(place, positive, 1, api_name="/add_point"))
        return seconds

    print(f"first click, with encoding: {1e3 * click(0):.0f} ms")
    tell("clicks on the same slice", [click(n) for n in range(1, clicks + 1)])
    for _ in range(clicks):
        client.predict(api_name="/undo")
    seconds, state = timed(lambda: client.predict(api_name="/propagate"))
    target = state["targets"]["1"]
    print(f"propagate: {seconds:.1f} s, {target['voxels']} voxels, {target['ml']:.0f} ml")
    print(f"first correction on a slice: {1e3 * click(2):.0f} ms")
    tell("corrections after it", [click(n) for n in range(3, clicks + 3)])
    seconds, _ = timed(lambda: client.predict("graph_cut", api_name="/refine"))
    print(f"refine: {seconds:.1f} s")


def timed(work: Callable[[], dict]) -> tuple[float, dict]:
    """Seconds and result."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def tell(what: str, seconds: list[float]) -> None:
    """Print median and worst, and whether the median is below the aim."""
    median, worst = 1e3 * statistics.median(seconds), 1e3 * max(seconds)
    verdict = "reached" if median < AIM_MS else "missed"
    print(
        f"{what}: median {median:.0f} ms, worst {worst:.0f} ms over {len(seconds)} "
        f"(aim: below {AIM_MS:.0f} ms: {verdict})"
    )


if __name__ == "__main__":
    main()
