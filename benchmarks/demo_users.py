"""Several people at once on one web demo: no error, no mix-up, memory back afterwards.

python benchmarks/demo_users.py [--users 5] [--minutes 3]

Every user has an image of another shape and another organ, and repeats: open, click, propagate,
correct, refine, undo, download. After each step the answer must be about their own image, and the
downloaded mask must lie on it and fit its organ. Exit status 1 if anything went wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from demo_server import DemoServer, connect, inside, write_ct
from gradio_client import Client, handle_file

import promptseg as ps

ORGANS = (3, 4, 2, 8, 5)
SETTLE_S = 60.0
ROOM_MB = 200.0


@dataclass
class User:
    """One scripted user and what went wrong for them."""

    number: int
    path: Path
    labels: np.ndarray
    organ: int
    rounds: int = 0
    steps: int = 0
    wrong: list[str] = field(default_factory=list)

    def work(self, address: str, until: float) -> None:
        """Repeat the script until a time, once at least."""
        try:
            client = connect(address, self.path.parent / "files")
            while not self.wrong:
                self.play(client)
                self.rounds += 1
                if time.monotonic() > until:
                    break
            client.close()
        except Exception as error:
            self.wrong.append(f"{type(error).__name__}: {error}")

    def play(self, client: Client) -> None:
        """One round."""
        self.check(client.predict(handle_file(str(self.path)), api_name="/open"))
        at = [float(value) for value in inside(self.labels, self.organ).at]
        self.check(client.predict(at, True, 1, api_name="/add_point"))
        self.check(client.predict([at[0] + 1, at[1], at[2]], True, 1, api_name="/add_point"))
        self.check(client.predict(api_name="/propagate"))
        self.check(client.predict([0.0, 0.0, at[2]], False, 1, api_name="/add_point"))
        self.check(client.predict("graph_cut", api_name="/refine"))
        self.check(client.predict(api_name="/undo"))
        mask = ps.read(client.predict(api_name="/download_mask")).data > 0
        if mask.shape != self.labels.shape:
            self.wrong.append(f"mask of shape {mask.shape} on {self.labels.shape}")
        elif not mask[tuple(round(value) for value in at)]:
            self.wrong.append("the mask does not hold the click")

    def check(self, state: dict) -> None:
        """The answer must be about this user's image."""
        self.steps += 1
        image = state["image"]
        if image["name"] != self.path.name or image["shape"] != list(self.labels.shape):
            self.wrong.append(f"got {image}, opened {self.path.name} {self.labels.shape}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=3.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        users = [make_user(Path(folder), number) for number in range(options.users)]
        with DemoServer() as server:
            warm_up(server, users[0])
            before = settled(server, 0.0)
            run(server, users, options.minutes)
            peak = server.memory_mb(peak=True)
            after = settled(server, before + ROOM_MB)
    return report(users, before, peak, after)


def make_user(folder: Path, number: int) -> User:
    """A user whose image has a shape that nobody else has."""
    path = folder / f"user{number}" / f"ct{number}.nii.gz"
    path.parent.mkdir()
    shape = (112 + 4 * number, 88 + 4 * number, 40 + 2 * number)
    return User(number, path, write_ct(path, shape, number), ORGANS[number % len(ORGANS)])


def warm_up(server: DemoServer, user: User) -> None:
    """One round and gone, so that the network and its workspaces count as the start."""
    user.work(server.address, time.monotonic() + 1e-3)
    print(f"warm-up: {user.rounds} round, {user.wrong or 'nothing wrong'}")
    user.rounds = user.steps = 0


def run(server: DemoServer, users: list[User], minutes: float) -> None:
    """All users at once."""
    until = time.monotonic() + 60 * minutes
    threads = [threading.Thread(target=u.work, args=(server.address, until)) for u in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def settled(server: DemoServer, wanted: float) -> float:
    """Memory after the visits have ended: at most `wanted`, or what it is after a while."""
    until = time.monotonic() + SETTLE_S
    time.sleep(5)
    while server.memory_mb() > wanted > 0 and time.monotonic() < until:
        time.sleep(2)
    return server.memory_mb()


def report(users: list[User], before: float, peak: float, after: float) -> int:
    """Print what happened; 1 if anything is wrong."""
    for user in users:
        said = "; ".join(user.wrong) or "nothing wrong"
        print(f"user {user.number}: {user.rounds} rounds, {user.steps} answers, {said}")
    back = after <= before + ROOM_MB
    verdict = f"{'back' if back else 'NOT back'} within {ROOM_MB:.0f} MB"
    print(
        f"server: {before:.0f} MB before, {peak:.0f} MB at its highest, {after:.0f} MB afterwards"
    )
    print(f"memory: {verdict}")
    return int(not back or any(user.wrong or not user.rounds for user in users))


if __name__ == "__main__":
    sys.exit(main())
