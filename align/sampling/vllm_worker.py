"""Samples with vLLM in its own environment: reads one JSON object, writes JSON lines.

Needs nothing but vLLM and the standard library. Standard output is the answers' alone: what vLLM prints goes to the log.
"""

import importlib
import json
import os
import sys


def main() -> None:
    """Answer what standard input asks, batch by batch."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    asked = json.load(sys.stdin)
    vllm, requests = map(importlib.import_module, ("vllm", "vllm.lora.request"))
    model = vllm.LLM(**asked["engine"])
    adapter = requests.LoRARequest("policy", 1, asked["adapter"]) if asked["adapter"] is not None else None
    for batch in asked["batches"]:
        outputs = model.generate(
            [{"prompt_token_ids": ids} for ids in batch["prompts"]],
            [vllm.SamplingParams(**asked["sampling"], seed=seed) for seed in batch["seeds"]],
            lora_request=adapter,
            use_tqdm=False,
        )
        print(json.dumps([list(output.outputs[0].token_ids) for output in outputs]), file=channel, flush=True)


if __name__ == "__main__":
    main()
