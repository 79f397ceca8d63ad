"""One process of the FSDP2 test in `test_processes.py`: a batch scored in packed rows, whole and sharded."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import packing
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from align.scoring.shared_prefix import SharedPrefixModel, prepare
from align.trainers.shared.trl_contract import fast_head


def scored(*, sharded):
    """LoRA gradients and log-probabilities; each process has the same batch, and the mean over them is one's."""
    policy = packing.built("llama", lora=True)
    prepare(policy)
    if sharded:
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for layer in policy.get_base_model().model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(policy, mesh=mesh)
    with fast_head():
        logps = SharedPrefixModel(policy)(**packing.RIGHT, fused_lm_head=True).log_probs
    logps.sum().backward()
    gradients = {n: p.grad for n, p in policy.named_parameters() if p.grad is not None}
    return {n: g.full_tensor() if sharded else g for n, g in gradients.items()}, logps.detach()


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    (whole, logps), (shards, sharded_logps) = scored(sharded=False), scored(sharded=True)
    if dist.get_rank() == 0:
        off = [float((shards[name] - whole[name]).norm() / whole[name].norm()) for name in whole]
        result = {"gradients": off, "logps": float((logps - sharded_logps).abs().max())}
        Path(sys.argv[1]).write_text(json.dumps(result))
    dist.barrier()
    dist.destroy_process_group()
