"""Runs rounds in a child that is killed in a stage drawn at random, by the clock or before a change of its files.

Libraries are loaded once for all. Arguments: folder, how many kills, seed, who may be asked, and overrides of the recipe.
Prints one line of JSON: kills by the stage, and the number of whole runs, which are `folder/0`, `folder/1` and so on.
"""

import json
import os
import random
import signal
import sys
import threading
import traceback
from collections import Counter
from pathlib import Path

from align.rounds.ledger import Ledger
from align.train import run

STAGES = ("prompts", "answers-policy", "scores", "pairs", "train", "report")
WRITES = (
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.truncate",
    "shutil.copytree",
    "shutil.rmtree",
)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def deadly(path, stage, draw):
    """In a child: die some time after the stage has begun, or before the change of files of some number since."""
    left: list[int] = []

    def count(event, args):
        writes = event in WRITES or (event == "open" and isinstance(args[1], str) and set(args[1]) & set("wa+x"))
        if left and writes and str(path) in str(args[0]):
            left[0] -= 1
            if not left[0]:
                die()

    whole = Ledger.stage

    def begun(self, number, name, *rest):
        if name == stage and (number, name) not in self.done and not left:
            if draw.random() < 0.5:
                left.append(draw.randint(1, 40 if stage == "train" else 8))
            else:
                threading.Timer(draw.uniform(0, 3.0 if stage == "train" else 0.8), die).start()
        return whole(self, number, name, *rest)

    Ledger.stage = begun
    sys.addaudithook(count)


def attempt(path, words, allow):
    begun = (path / "recipe.resolved.yaml").is_file()
    run("rounds/tiny", [*words, f"train.output_dir={path}"], resume="auto" if begun else None, allow=[allow])


def main(folder, kills, seed, allow, *words):
    draw, hit, runs, whole = random.Random(int(seed)), Counter(), 0, False
    while hit.total() < int(kills) or not whole:
        path, stage = Path(folder, str(runs)), STAGES[hit.total() % len(STAGES)]
        own = random.Random(draw.random())
        child = os.fork()
        if not child:
            code = 1
            try:
                if hit.total() < int(kills):
                    deadly(path, stage, own)
                attempt(path, words, allow)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        whole = status == 0
        if os.WIFSIGNALED(status):
            hit[stage] += 1
        elif os.WEXITSTATUS(status):
            sys.exit(f"{path}: failed after {dict(hit)}")
        else:
            runs += 1
    sys.stdout.write(json.dumps({"kills": hit, "runs": runs}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
