"""Runs rounds in a child that is killed, by the clock or before a change of its files; libraries are loaded once for all.

Arguments: folder, how many kills, seed, who may be asked, and overrides of the recipe. Prints one line of JSON: kills by the stage they fell in,
and the number of whole runs, which are `folder/0`, `folder/1` and so on.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

from align.rounds.ledger import FILE
from align.train import run

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


def attempt(path, words, allow, after):
    """In a child: go on, and die before the change of files of that number."""
    if after is not None:
        left = [after]

        def count(event, args):
            writes = event in WRITES or (event == "open" and isinstance(args[1], str) and set(args[1]) & set("wa+x"))
            if writes and str(path) in str(args[0]):
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
    begun = (path / "recipe.resolved.yaml").is_file()
    run("rounds/tiny", [*words, f"train.output_dir={path}"], resume="auto" if begun else None, allow=[allow])


def stage_of(path):
    """What comes after the last whole line."""
    lines = (path / FILE).read_text().splitlines() if (path / FILE).is_file() else []
    try:
        return "after " + json.loads(lines[-1])["stage"] if lines else "begin"
    except ValueError:
        return "a line"


def main(folder, kills, seed, allow, *words):
    draw, hit, runs, patience = random.Random(int(seed)), Counter(), 0, 1.0
    while hit.total() < int(kills) or runs == 0:
        path = Path(folder, str(runs))
        by_clock = draw.random() < 0.5
        delay, after = draw.uniform(0.2, 4.0) * patience, draw.randint(1, 120)
        dies = hit.total() < int(kills)
        child = os.fork()
        if not child:
            code = 1
            try:
                os.setsid()
                attempt(path, words, allow, after if dies and not by_clock else None)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        until = time.monotonic() + delay
        done, status = 0, 0
        while not done:
            done, status = os.waitpid(child, os.WNOHANG)
            if not done and dies and by_clock and time.monotonic() > until:
                os.kill(child, signal.SIGKILL)
                by_clock = False
            time.sleep(0.01)
        if os.WIFSIGNALED(status):
            hit[stage_of(path)] += 1
            patience *= 1.02
        elif os.WEXITSTATUS(status):
            sys.exit(f"{path}: failed after {dict(hit)}")
        else:
            runs, patience = runs + 1, 1.0
    sys.stdout.write(json.dumps({"kills": hit, "runs": runs}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
