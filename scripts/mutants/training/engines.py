"""What FSDP2 and ZeRO do to trainers, rules and checkpoints."""

from mutants.mutant import noticed_by

REFERENCE, MACHINE = "align/trainers/shared/reference.py", "align/check/machine.py"
RULES = "align/check/environment.py"
engine = noticed_by("tests/trainers/distributed/test_engines.py")
rule = noticed_by("tests/check/test_environment.py")
nodes = noticed_by("tests/commands/test_launching.py")
shared = noticed_by("tests/runs/test_agreement.py")
LAUNCHING = "align/launching.py"
MUTANTS = [
    engine(
        "engines: what ZeRO-3 keeps gathered holds noise",
        REFERENCE,
        "            part.copy_(before)\n        _gathered_anew(trained)\n",
        "            part.copy_(before)\n",
    ),
    engine(
        "engines: ZeRO-3 spreads a model without weights",
        "align/check/sizes.py",
        'with torch.device("meta"), set_zero3_state():',
        'with torch.device("meta"):',
    ),
    engine(
        "engines: the first step is looked at after it",
        "align/trainers/pairs/preference.py",
        "        if self.first_step is not None and self.first_step.due(self):\n            self._look_at_reference(self.first_step, model, inputs)\n        parts = self._parts(inputs)\n        loss = torch.zeros((), device=self.accelerator.device)\n        self._pairs_in_step = self.mean_pairs or sum(map(len, parts))\n        for number, part in enumerate(parts, start=1):\n            last = number == len(parts)\n            with contextlib.nullcontext() if last else self.accelerator.no_sync(model), self.no_casts():\n                loss += super().training_step(model, pick_pairs(inputs, part), *args, **kwargs)\n",
        "        parts = self._parts(inputs)\n        loss = torch.zeros((), device=self.accelerator.device)\n        self._pairs_in_step = self.mean_pairs or sum(map(len, parts))\n        for number, part in enumerate(parts, start=1):\n            last = number == len(parts)\n            with contextlib.nullcontext() if last else self.accelerator.no_sync(model), self.no_casts():\n                loss += super().training_step(model, pick_pairs(inputs, part), *args, **kwargs)\n        if self.first_step is not None and self.first_step.due(self):\n            self._look_at_reference(self.first_step, model, inputs)\n",
    ),
    rule(
        "engines: a rule asks KTO for a budget of tokens",
        RULES,
        '_zero(m) and getattr(r.train, "max_tokens_per_batch", None)',
        "_zero(m) and r.train.max_tokens_per_batch",
    ),
    rule("engines: ZeRO-3 may end without a model", RULES, "not r.trains_adapter and not m.gathers", "False"),
    rule(
        "engines: an adapter is refused under ZeRO-3", RULES, "not r.trains_adapter and not m.gathers", "not m.gathers"
    ),
    rule(
        "engines: what the file says of ZeRO-3's model is not read",
        MACHINE,
        'else (settings.get("deepspeed_config") or {}).get("zero3_save_16bit_model")',
        "else None",
    ),
    rule(
        "engines: later rounds are read as on a GPU",
        "align/recipe/rounds.py",
        "{**values, **method.preset, **off}",
        "{**values, **method.preset}",
    ),
    nodes(
        "nodes: accelerate counts the processes of one",
        LAUNCHING,
        "processes * (1 if nodes is None",
        "(processes if nodes is None",
    ),
    nodes(
        "nodes: DeepSpeed starts the others over ssh",
        LAUNCHING,
        'command.append("--deepspeed_multinode_launcher=standard")',
        "pass",
    ),
    nodes(
        "nodes: each trains alone",
        LAUNCHING,
        "        if nodes is not None:\n            where = [",
        "        if False:\n            where = [",
    ),
    nodes("nodes: Slurm's number comes first", LAUNCHING, "if rank is None and slurm.isdigit()", "if slurm.isdigit()"),
    nodes("nodes: a number beyond the last", LAUNCHING, "0 <= rank < options.nodes", "0 <= rank <= options.nodes"),
    nodes("nodes: one alone waits for others", LAUNCHING, "return None if options.nodes == 1 else", "return"),
    nodes(
        "nodes: they are not told what they lacked",
        LAUNCHING,
        "    except DistError as error:",
        "    except ZeroDivisionError as error:",
    ),
    shared(
        "nodes: rounds on folders of their own",
        "align/runs/directory.py",
        "        if ledger in READ_BY_ALL:\n",
        "        if False:\n",
    ),
    shared(
        "nodes: a file that is not there is no other file",
        "align/runs/agreement.py",
        "except (RunError, OSError) as error:",
        "except RunError as error:",
    ),
    noticed_by("tests/models/test_models.py")(
        "nodes: a model without weights",
        "align/models/loading.py",
        "    model.should_save_on_this_rank = lambda is_main_process: True\n",
        "",
    ),
]
