"""Users at work until the time is up, killed again and again: `python -m tests.faults.soak --minutes 30`.

After each kill the others are stopped where they are, what must hold is looked at, and they go on. Every few minutes it is
MongoDB that crashes. In the end one process builds, segments and compacts, and its answers must be those of a dataset that
nobody troubled.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.conftest import fiftyone_settings
from tests.private_mongod import PrivateMongod, find_mongod

NAME = "soak"
NUM_USERS = 3
NUM_IMAGES = 20
SECONDS_BETWEEN_KILLS = (10.0, 40.0)
SERVER_CRASHES = 0.05
"""Share of the kills that are MongoDB's."""
ARMED = 0.6
"""Share of the users that are to die at a chosen point instead of a random moment."""


class Ledger:
    """What the users have noted, read on from where it was read before.

    Attributes:
        done: number of operations by kind.
        refused: number of refusals by kind and error.
        messages: one message of each refusal.
        wrong: what users saw that must not be.
        decided: for each sample id the labels that acknowledged decisions have left.
    """

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.refused: Counter[tuple[str, str]] = Counter()
        self.messages: dict[tuple[str, str], str] = {}
        self.wrong: list[str] = []
        self.decided: dict[str, set[str]] = {}
        self._read: dict[Path, int] = {}
        self._open: dict[Path, list[str]] = {}

    def read(self, log: Path) -> None:
        """Read what was added to a log; a last line that was cut off is left."""
        text = log.read_bytes()[self._read.get(log, 0) :]
        whole = text[: text.rfind(b"\n") + 1]
        self._read[log] = self._read.get(log, 0) + len(whole)
        for line in whole.splitlines():
            self._take(log, json.loads(line))

    def end(self, log: Path) -> None:
        """A user is gone: what it had begun may or may not be there, and whoever follows says what is."""
        for image in self._open.pop(log, ()):
            self.decided.pop(image, None)

    def certain(self) -> dict[str, set[str]]:
        """What is known of images on which nobody decides at the moment."""
        uncertain = {image for images in self._open.values() for image in images}
        return {image: labels for image, labels in self.decided.items() if image not in uncertain}

    def _take(self, log: Path, line: dict[str, Any]) -> None:
        if "begins" in line:
            self._open[log] = line["images"]
        elif "holds" in line:
            self.decided.update({image: set(labels) for image, labels in line["holds"].items()})
            self._open.pop(log, None)
        elif "decided" in line:
            self._apply(line)
            self._open.pop(log, None)
        elif "deleted" in line:
            for image in line["deleted"]:
                self.decided.pop(image, None)
            self._open.pop(log, None)
        elif "violation" in line:
            self.wrong.append(line["violation"])
            self.end(log)
        elif "refused" in line:
            key = line["refused"], line["error"]
            self.refused[key] += 1
            self.messages.setdefault(key, line["message"])
            self.end(log)
        else:
            self.done[line["done"]] += 1

    def _apply(self, line: dict[str, Any]) -> None:
        # Where it is not known what was there before, nothing is known now either.
        for image, labels in line["written"].items():
            if image in self.decided:
                self.decided[image].update(labels)
        for image, labels in line["gone"].items():
            if image in self.decided:
                self.decided[image].difference_update(labels)


class Soak:
    """The users, MongoDB and the clock.

    Args:
        folder: an empty one, for everything.
        seed: of what is done and when somebody is killed.
        server_crashes: share of the kills that are MongoDB's.
    """

    def __init__(self, folder: Path, seed: int, server_crashes: float = SERVER_CRASHES) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.ledger = Ledger()
        self.kills: Counter[str] = Counter()
        self.num_checks = 0
        self.found: list[str] = []
        self.server_crashes = server_crashes
        executable = find_mongod()
        assert executable is not None, "there is no mongod: python scripts/ensure_mongod.py"
        self.executable = executable
        self.server = PrivateMongod(executable, folder)
        os.environ.update(fiftyone_settings(folder))
        os.environ["FIFTYONE_DATABASE_URI"] = self.server.uri
        for name in ("images", "added", "masks", "plugins"):
            (folder / name).mkdir()
        self.users: dict[int, subprocess.Popen[bytes]] = {}
        self._num_started = 0

    def prepare(self) -> None:
        """A dataset with references, prototypes, an index and predictions."""
        import fiftyone as fo

        import refseg
        from tests.faults.soak.user import OWNER, QUIET
        from tests.trays import quick_models, tray_samples

        samples = tray_samples(self.folder / "images", NUM_IMAGES)
        for number, sample in enumerate(samples):
            sample[OWNER] = number % (NUM_USERS + 1)
        dataset = fo.Dataset(NAME, persistent=True)
        dataset.add_samples(samples, progress=False)
        models = quick_models()
        # References that nobody deletes: on images that nobody owns.
        shown = dataset.match({OWNER: 0}).limit(2).values("ground_truth.detections.id", unwind=True)
        refseg.tag_references(dataset, shown, "ground_truth")
        references = refseg.collect_references(dataset, "ground_truth", tags="reference")
        refseg.save_prototypes(dataset, refseg.build_prototypes(references, models, progress=False), "parts")
        refseg.build_index(dataset, models, **QUIET)
        refseg.segment(dataset, "parts", model=models, min_confidence=0.0, max_detections=6, **QUIET)

    def start(self, number: int) -> None:
        """Let a user begin, some of them to die at a chosen point."""
        from refseg.failpoints import POINTS, VARIABLE

        self._num_started += 1
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        if self.rng.random() < ARMED:
            point, times = self.rng.choice(sorted(POINTS)), self.rng.randint(1, 2)
            environment[VARIABLE] = f"{point}=kill@{times}"
        command = [sys.executable, "-m", "tests.faults.soak.user", NAME, str(number), str(self.rng.randrange(1 << 30))]
        command += [str(self._log(number)), str(self.folder)]
        with (self.folder / f"user_{number}.err").open("ab") as errors:
            self.users[number] = subprocess.Popen(command, env=environment, stderr=errors, stdout=errors)

    def run(self, seconds: float, say: Any) -> None:
        """Kill and look until the time is up."""
        for number in range(1, NUM_USERS + 1):
            self._log(number).touch()
            self.start(number)
        end = time.monotonic() + seconds
        said = time.monotonic()
        while time.monotonic() < end:
            deadline = time.monotonic() + self.rng.uniform(*SECONDS_BETWEEN_KILLS)
            while time.monotonic() < deadline and all(user.poll() is None for user in self.users.values()):
                time.sleep(0.05)
            self._kill_and_look()
            if time.monotonic() - said > 60:
                say(self.summary())
                said = time.monotonic()
        for user in self.users.values():
            user.kill()
            user.wait()
        self._look()

    def compare(self) -> None:
        """The answers of one process, now that all are gone, with those of a dataset that nobody has troubled."""
        import fiftyone as fo

        import refseg
        from tests.faults.soak.user import QUIET
        from tests.trays import quick_models

        models = quick_models()
        dataset = fo.Dataset._make_instance(NAME, _create=False)
        clean = fo.Dataset("clean", persistent=True)
        clean.add_samples([fo.Sample(path) for path in dataset.values("filepath")], progress=False)
        prototypes = refseg.load_prototypes(dataset, "parts")
        answers = []
        for one in (dataset, clean):
            refseg.build_index(one, models, **QUIET)
            refseg.open_index(one).compact()
            options = {"model": models, "min_confidence": 0.0, "max_detections": 6, **QUIET}
            refseg.segment(one, prototypes, "answers", **options)
            answers.append(
                {
                    path: [(label.label, round(label.confidence, 2)) for label in found.detections]
                    for path, found in zip(*one.values(["filepath", "answers"]), strict=True)
                }
            )
        wrong = [path for path, found in answers[0].items() if found != answers[1][path]]
        if wrong:
            self.found.append(f"answers: {len(wrong)} of {len(answers[0])} images differ, {wrong[0]} first")
        status = refseg.open_index(dataset).status()
        if (status.num_changed, status.num_unread_rows, status.num_deleted) != (0, 0, 0):
            self.found.append(f"index: {status} after all was built and compacted")

    def summary(self) -> str:
        """So far, in a line."""
        return (
            f"{sum(self.ledger.done.values())} operations, {sum(self.ledger.refused.values())} refused, "
            f"{sum(self.kills.values())} kills, {self.num_checks} checks, {len(self.violations)} violations"
        )

    @property
    def violations(self) -> list[str]:
        """Everything that must not be."""
        return self.ledger.wrong + self.found

    def close(self) -> None:
        """Leave nothing running."""
        for user in self.users.values():
            user.kill()
        self.server.stop()

    def _kill_and_look(self) -> None:
        dead = [number for number, user in self.users.items() if user.poll() is not None]
        self.kills["a user, at a chosen point"] += len(dead)
        if self.rng.random() < self.server_crashes:
            self._crash_the_server()
        elif not dead:
            dead = [self.rng.choice(list(self.users))]
            self.users[dead[0]].kill()
            self.users[dead[0]].wait()
            self.kills["a user, at any moment"] += 1
        for number in dead:
            if self.users[number].returncode != -signal.SIGKILL:
                self.found.append(f"user {number} ended by itself with {self.users[number].returncode}")
        alive = [user for number, user in self.users.items() if number not in dead]
        for user in alive:
            user.send_signal(signal.SIGSTOP)
        for number in dead:
            self.ledger.read(self._log(number))
            self.ledger.end(self._log(number))
        self._look()
        for user in alive:
            user.send_signal(signal.SIGCONT)
        for number in dead:
            self.start(number)

    def _crash_the_server(self) -> None:
        self.server.kill()
        self.server = PrivateMongod(self.executable, self.folder, self.server.port)
        self.kills["MongoDB"] += 1

    def _look(self) -> None:
        from tests.faults.invariants import violations

        for number in self.users:
            self.ledger.read(self._log(number))
        self.found += violations(NAME, self.ledger.certain())
        self.num_checks += 1

    def _log(self, number: int) -> Path:
        return self.folder / f"user_{number}.jsonl"


def main() -> int:
    """Soak, and print operations, kills and violations; 1 where there were any of the last."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default: 30)")
    parser.add_argument("--seed", type=int, default=0, help="of what is done, and of when somebody is killed (default: 0)")
    parser.add_argument("--server-crashes", type=float, default=SERVER_CRASHES, help="share of kills that are MongoDB's")
    parser.add_argument("--keep", action="store_true", help="keep the folder with logs and data")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="refseg-soak-"))
    soak = Soak(folder, asked.seed, asked.server_crashes)
    try:
        soak.prepare()
        soak.run(60 * asked.minutes, say)
        soak.compare()
    finally:
        soak.close()
    report(soak)
    if soak.violations or asked.keep:
        say(f"Logs and data are in {folder}.")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return int(bool(soak.violations))


def report(soak: Soak) -> None:
    """What was done, what was refused, who was killed, and what was wrong."""
    say("\noperations")
    for kind, number in soak.ledger.done.most_common():
        say(f"  {number:6} {kind}")
    say("refused, with a sentence")
    for key, number in soak.ledger.refused.most_common():
        say(f"  {number:6} {key[0]}: {soak.ledger.messages[key]}")
    say("kills")
    for kind, number in soak.kills.most_common():
        say(f"  {number:6} {kind}")
    say("violations" if soak.violations else "violations: none")
    for one, number in Counter(soak.violations).most_common():
        say(f"  {number:6} {one}")
    say(soak.summary())


def say(line: str) -> None:
    """Print a line now."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
