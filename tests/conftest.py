"""What every test has: helper modules on the path, and marks that choose what runs."""

import gc
import importlib
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait awake slow each other down manyfold
sys.path.insert(0, str(Path(__file__).parent / "helpers"))  # importlib mode puts nothing there
sys.path.insert(0, str(Path(__file__).parent / "helpers" / "workers"))

# Not align or eval: shape checks are hooked in after this file is read.
import datasets.fingerprint
import pytest
import torch
from hypothesis import settings

settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True)
settings.load_profile("ci")
torch.set_num_threads(1)

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(scope="module", autouse=True)
def frozen_heap():
    """Each training collects garbage twice, and a collection walks all that was imported: 0.3 seconds and more each."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def learnt_caller(tmp_path_factory):
    """The folder of a tiny model that has learnt to call tools: five seconds, once."""
    return importlib.import_module("tool_world").caller(tmp_path_factory.mktemp("caller"))


@pytest.fixture(autouse=True)
def own_reference_store(tmp_path, monkeypatch):
    """No test finds what another stored."""
    monkeypatch.setattr("align.scoring.reference_store.cache_dir", lambda: tmp_path / "cache")


@pytest.fixture(autouse=True)
def no_fingerprints(monkeypatch):
    """To hash a function that checks shapes, datasets pickles all that its module names: 40 seconds for one `map`."""

    def drawn(*_):
        return datasets.fingerprint.generate_random_fingerprint()

    for module in ("fingerprint", "arrow_dataset"):
        monkeypatch.setattr(f"datasets.{module}.update_fingerprint", drawn)


BLANK = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)
"""A picture of one transparent pixel, as PNG."""


@pytest.fixture(scope="module", autouse=True)
def no_pictures(request):
    """Drawing is half of the time of an evaluation. Modules with `PICTURES = True` look at what is drawn."""

    def blank(_, target, **__):
        target.write(BLANK) if hasattr(target, "write") else Path(target).write_bytes(BLANK)

    with pytest.MonkeyPatch.context() as patch:
        if not getattr(getattr(request.node, "obj", None), "PICTURES", False):
            patch.setattr("matplotlib.figure.Figure.savefig", blank)
        yield


@pytest.fixture
def all_threads():
    """For real models. Tiny ones are slower, not faster, on several threads, and repeat to the bit only on as many."""
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def shared_data():
    """The folder of real data sets, which is not part of the project."""
    if not SHARED.is_dir():
        pytest.skip(f"real data sets are not at {SHARED}")
    return SHARED


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the recipe tests of a module write theirs."""
    return tmp_path_factory.mktemp("recipes")


@pytest.fixture
def sampled(monkeypatch):
    """How many answers each batch samples."""
    sizes = []
    module = importlib.import_module("align.sampling.store")
    original = module.sampled_batches

    def counting(*args, **kw):
        for batch in original(*args, **kw):
            sizes.append(len(batch))
            yield batch

    monkeypatch.setattr(module, "sampled_batches", counting)
    return sizes


@pytest.fixture(scope="module")
def tokenizer():
    return importlib.import_module("align.models.tiny").tiny_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    """Peaked enough to have opinions: a random model's softmax is nearly flat."""
    made = importlib.import_module("align.models.tiny").tiny_model(tokenizer).eval()
    made.lm_head.weight.data *= 20
    return made


@pytest.fixture
def path(tmp_path):
    """Of a file of answers; its folder is not there yet."""
    return tmp_path / "new" / "answers.jsonl"


@pytest.fixture
def ask(request, path, model, tokenizer):
    """Answers of the model by way of the file; by default to the test module's `PROMPTS` with its `DECODING`."""
    stored_answers = importlib.import_module("align.sampling.store").stored_answers

    def stored(prompts=request.module.PROMPTS, decoding=request.module.DECODING, **kw):
        return stored_answers(
            path, kw.pop("model", model), kw.pop("tokenizer", tokenizer), prompts, decoding, **{"batch_size": 2} | kw
        )

    return stored


@pytest.fixture
def own_tables():
    """What a test adds to the tables for code of one's own is gone after it."""
    own_code = importlib.import_module("align.own_code")
    held = {kind: dict(own_code._table(place)) for kind, place in own_code.TABLES.items()}
    yield
    own_code._FILES.clear()
    for kind, place in own_code.TABLES.items():
        table = own_code._table(place)
        table.clear()
        table.update(held[kind])
