"""One process of `test_engines.py`: `align.train` under FSDP2 or ZeRO, which accelerate otherwise gives to GPUs alone."""

import os
import signal
import sys
from dataclasses import replace

ZERO = {
    "DS_ACCELERATOR": "cpu",
    "ACCELERATE_USE_DEEPSPEED": "true",
    "ACCELERATE_CONFIG_DS_FIELDS": "zero_stage,mixed_precision",
    "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "none",
    "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "none",
}
GATHERED = {
    "ACCELERATE_DEEPSPEED_ZERO3_INIT": "true",
    "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true",
}
ENGINES = {
    "ddp": {},
    "fsdp2": {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
    },
    "zero2": ZERO | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"},
    "zero3": ZERO | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3", **GATHERED},
}


def main(engine, dies, words):
    os.environ |= ENGINES[engine] | {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_TORCH_DEVICE": "cpu"}
    import torch  # noqa: PLC0415 - after what engines are told by
    from accelerate import PartialState  # noqa: PLC0415
    from accelerate.utils import DistributedType  # noqa: PLC0415

    from align import train  # noqa: PLC0415

    torch.set_num_threads(1)
    if engine != "ddp":
        PartialState._prepare_backend = lambda self, *_, **__: ("gloo", DistributedType.MULTI_GPU)
    if engine.startswith("zero"):
        import deepspeed.ops  # noqa: PLC0415

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else it is compiled, for minutes
    if dies is not None:

        class Dies(train.StopOnSignal):
            def on_step_begin(self, args, state, control, **_):
                if state.global_step == dies and args.process_index == 1:
                    os.kill(os.getpid(), signal.SIGKILL)

        train.StopOnSignal = Dies
    here = train.Machine.here
    train.Machine.here = classmethod(lambda cls: replace(here(), gpus=("a CPU that passes for one",)))
    return train.main(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]) if sys.argv[2] != "-" else None, sys.argv[3:]))
