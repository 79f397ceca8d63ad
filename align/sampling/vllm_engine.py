"""Samples answers by vLLM, in a process of an environment of its own.

vLLM (Kwon et al. 2023, arXiv:2309.06180) pins versions of torch and transformers that are not ours; so it is never
imported here. Whoever evaluates names the interpreter of its environment (never a recipe: it is a program that runs), and
`align.sampling.vllm_worker` is handed to that. Prompts go as token ids and come back as such: templates and tokenizers are ours.

Each request has its own seed, that of `eval.generate`, so that adding prompts changes no other answer beyond what
batching changes in rounding. The noise is vLLM's: answers are other draws from the same distribution.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import LoraConfig
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from align.errors import RunError
from align.models.folders import adapter_settings
from align.models.loading import model_path
from align.models.stopping import stop_ids
from align.models.use import Use
from align.recipe.loading import Recipe

from . import vllm_worker
from .generate import Answer, Decoding, Engine, Job, answer_of, seed_of
from .processes import NoInterpreter, ask_interpreter, last_lines, process_group

LOG_FILE = "vllm.log"
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM makes room for
ASK_VERSION = """
import importlib.metadata as m, json
names = m.packages_distributions().get("vllm", [])
print(json.dumps(m.version(names[0]) if names else None))
"""


@dataclass(frozen=True)
class VLLM:
    """An environment with vLLM."""

    python: str
    version: str

    @classmethod
    def at(cls, python: str) -> "VLLM":
        """The vLLM of an interpreter, which is asked for its version; nothing heavy is imported there.

        Args:
            python: A path, or a name on PATH.

        Raises:
            RunError: If there is no such interpreter, or it has no vLLM.
        """
        try:
            version = ask_interpreter(python, ASK_VERSION, package="vLLM")
        except NoInterpreter as error:
            raise RunError(f"--vllm: {error}") from error
        if version is None:
            raise RunError(
                f"--vllm: {python} has no vLLM: run `{python} -m pip install vllm`, or name another interpreter"
            )
        return cls(python, version)

    def engine(
        self, use: Use, tokenizer: PreTrainedTokenizerBase, decoding: Decoding, *, batch_size: int, desc: str, log: Path
    ) -> Engine:
        """What samples the answers of one model; vLLM starts with the first batch, and ends with the last.

        Args:
            use: The model, which vLLM loads from where it was loaded from, in the precision it is in.
            tokenizer: Says with the model which tokens end an answer, and turns tokens into text.
            decoding: As for `generate`.
            batch_size: Requests handed over, and answers returned, at a time. Several hundred use vLLM well.
            desc: Title of the progress bar.
            log: File of what vLLM prints.
        """

        def batches(encoded: Sequence[list[int]], jobs: Sequence[Job]) -> Iterator[dict[Job, Answer]]:
            if not jobs:
                return
            ordered = [jobs[start : start + batch_size] for start in range(0, len(jobs), batch_size)]
            stops = stop_ids(tokenizer, use.model)
            asked = self._asked(use, stops, decoding, encoded, ordered)
            with tqdm(total=len(jobs), desc=f"{desc} (vLLM {self.version})", unit="answer") as bar:
                for batch, completions in zip(ordered, _answers(self.python, asked, log), strict=True):
                    yield {
                        job: answer_of(tokenizer, stops, encoded[job.prompt], ids)
                        for job, ids in zip(batch, completions, strict=True)
                    }
                    bar.update(len(batch))

        return Engine({"vllm": self.version}, batches)

    @staticmethod
    def _asked(
        use: Use, stops: list[int], decoding: Decoding, encoded: Sequence[list[int]], batches: Sequence[Sequence[Job]],
    ) -> dict[str, Any]:  # fmt: skip
        dtype, device = str(use.model.dtype).removeprefix("torch."), use.model.device
        longest = max(len(encoded[job.prompt]) for batch in batches for job in batch)
        engine: dict[str, Any] = {
            "model": _found(model_path(use.settings)), "dtype": dtype,
            "max_model_len": longest + decoding.max_new_tokens, "skip_tokenizer_init": True,
            "generation_config": "vllm",  # the model's own settings do not apply, as in `generate`
            "gpu_memory_utilization": _share(device),  # on CPUs too, whatever its name
        }  # fmt: skip
        if use.settings.model_revision != "main":
            engine["revision"] = use.settings.model_revision
        if use.adapter is not None:
            rank = _rank(use.adapter)
            engine |= {"enable_lora": True, "max_lora_rank": next(room for room in RANKS if room >= rank)}
        return {
            "engine": engine,
            "adapter": None if use.adapter is None else _found(use.adapter),
            "sampling": {
                "temperature": decoding.temperature, "top_p": decoding.top_p, "max_tokens": decoding.max_new_tokens,
                "stop_token_ids": stops, "detokenize": False,
            },
            "batches": [
                {
                    "prompts": [encoded[job.prompt] for job in batch],
                    "seeds": [seed_of(encoded[job.prompt], job.sample, decoding.seed) for job in batch],
                }
                for batch in batches
            ],
        }  # fmt: skip


def check_vllm(recipe: Recipe) -> None:
    """Refuse what vLLM would not sample as it was trained, before a weight is loaded.

    Raises:
        RunError: If the recipe samples no answers, quantises its base, calls tools, or its adapter is none that vLLM loads.
    """
    if recipe.eval.generate is None:
        raise RunError("--vllm: the recipe samples no answers; see eval.generate")
    check_model(recipe)
    if recipe.tools or recipe.environments:
        raise RunError("--vllm: answers that call tools are sampled by the model itself; leave --vllm out")


def check_model(recipe: Recipe) -> None:
    """Refuse a base that vLLM would load otherwise, whatever is sampled for.

    Raises:
        RunError: If the recipe quantises its base.
    """
    if recipe.model.load_in_4bit or recipe.model.load_in_8bit:
        raise RunError(
            "--vllm: the base is quantised while it is loaded (model.load_in_4bit, load_in_8bit), which vLLM does otherwise; "
            "leave --vllm out"
        )


def _share(device: torch.device) -> float:
    """How much of all memory it may take: most of what nobody uses of a GPU's, half of that of a CPU's."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return 0.9 * free / total
    memory = psutil.virtual_memory()
    return 0.5 * memory.available / memory.total


def _found(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def _rank(adapter: str) -> int:
    config = adapter_settings(adapter)
    if not isinstance(config, LoraConfig) or config.use_dora or config.modules_to_save:
        raise RunError(f"--vllm: {adapter} is no plain LoRA adapter, which alone vLLM loads; leave --vllm out")
    rank = max([config.r, *(config.rank_pattern or {}).values()])
    if rank > RANKS[-1]:
        raise RunError(f"--vllm: {adapter} has rank {rank}, vLLM loads {RANKS[-1]} at most; leave --vllm out")
    return rank


def _answers(python: str, asked: dict[str, Any], log: Path) -> Iterator[list[list[int]]]:
    """Token ids of the answers, batch by batch as the process gives them; the process does not outlive the reading."""
    log.parent.mkdir(parents=True, exist_ok=True)
    source = Path(vllm_worker.__file__).read_text(encoding="utf-8")
    quiet = {"VLLM_NO_USAGE_STATS": "1"}  # else it reports its use over the network
    with process_group([python, "-P", "-c", source], log, variables=quiet, piped=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:  # it has ended, and its log says why
            stdin.write(json.dumps(asked).encode())
        given = 0
        for line in process.stdout:
            yield json.loads(line)
            given += 1
        code = process.wait()
        if code != 0 or given < len(asked["batches"]):
            raise RunError(
                f"vLLM ended with {code} after {given} of {len(asked['batches'])} batches, which are kept: "
                f"{last_lines(log)}\nIts whole output is in {log}"
            )
