"""An interpreter whose vLLM is none: it writes down what it is asked, and answers by the seeds alone."""

import json
import sys
from pathlib import Path
from typing import Any

STUB = """#!{python}
import json, os, random, signal, sys, time, types
mode, seen = {mode!r}, {seen!r}
if sys.argv[1] == "-c":
    print({{"absent": "null", "mute": "hello"}}.get(mode, '"0.99"'))
    sys.exit(0)
assert sys.argv[1:3] == ["-P", "-c"]

class LLM:
    def __init__(self, **engine):
        self.batches = 0
        self.record = {{"engine": engine, "usage": os.environ.get("VLLM_NO_USAGE_STATS"), "path": os.environ.get("PYTHONPATH")}}
        print("loading weights")

    def generate(self, prompts, sampling, lora_request, use_tqdm):
        os.write(1, b"[[1, 2]]")
        self.batches += 1
        if self.batches == 2 and mode == "killed":
            print("out of memory\\x1b[2J", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if self.batches == 2 and mode == "hangs":
            open(seen + ".begun", "w").close()
            time.sleep(20)
            open(seen + ".outlived", "w").close()
        lora = None if lora_request is None else lora_request.args[2]
        self.record |= {{"lora": lora, "sampling": sampling[0].kw, "prompts": [p["prompt_token_ids"] for p in prompts]}}
        open(seen, "a").write(json.dumps(self.record) + "\\n")
        made = [random.Random(s.kw["seed"]).sample(range(5, 40), 3) for s in sampling]
        return [types.SimpleNamespace(outputs=[types.SimpleNamespace(token_ids=tuple(ids))]) for ids in made]

class Given:
    def __init__(self, *args, **kw):
        self.args, self.kw = args, kw

vllm, lora, request = types.ModuleType("vllm"), types.ModuleType("vllm.lora"), types.ModuleType("vllm.lora.request")
vllm.LLM, vllm.SamplingParams, request.LoRARequest = LLM, Given, Given
sys.modules.update({{"vllm": vllm, "vllm.lora": lora, "vllm.lora.request": request}})
exec(sys.argv[3])
"""


def make_stub(folder: Path, mode: str = "works") -> str:
    """Its path; what it was asked is in `seen` of the folder."""
    path = folder / "env" / "bin" / "python"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(STUB.format(python=sys.executable, mode=mode, seen=str(folder / "seen")))
    path.chmod(0o755)
    return str(path)


def seen_by(folder: Path) -> list[dict[str, Any]]:
    """What it was asked, a call of `generate` each."""
    return [json.loads(line) for line in (folder / "seen").read_text().splitlines()]
