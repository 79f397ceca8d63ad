"""Exporting a run as one model."""

from mutants.mutant import noticed_by

EXPORT, GGUF = "align/merging/export.py", "align/merging/gguf.py"
exported = noticed_by("tests/models/test_export.py")
MUTANTS = [
    exported("export: the adapter is left out", EXPORT, "model = model.merge_and_unload(safe_merge=True)", "model = model.unload()"),
    exported("export: another model is written in silence", EXPORT, "if not apart < APART:", "if False:"),
    exported("export: a folder is written over", EXPORT, "if out.exists():", "if False:"),
    exported("export: a damaged adapter is folded", EXPORT, "made_by(Path(policy.adapter)) if policy.adapter is not None else {}", "{}"),
    exported("export: quantised files are taken", EXPORT, 'if getattr(stored, "quantization_config", None) is not None:', "if False:"),
    exported("export: quantisation is not told", EXPORT, "    if quantised:\n", "    if False:\n"),
    exported("export: the dtype asked for is ignored", EXPORT, "chosen = dtype or _named", "chosen = _named"),
    exported("export: it does not say where answers end", EXPORT, "    _say_where_answers_end(model, tokenizer)\n", ""),
    exported("export: what was written is not compared", EXPORT, "[a == b for a, b in", "[a != b for a, b in"),
    exported("export: the run's card is lost", EXPORT, "if own.is_file() else", "if False else"),
    exported("gguf: any type will do", GGUF, "OUTTYPES[dtype]]", '"f16"]'),
    exported("gguf: a converter that failed is believed", GGUF, "if done.returncode or not half.is_file():", "if False:"),
    exported("gguf: the first line is told", GGUF, "printable(said[-1], 500)", "printable(said[0], 500)"),
    exported("gguf: half a file stays", GGUF, "        half.unlink(missing_ok=True)\n", "        pass\n"),
    exported("gguf: no Modelfile", GGUF, '    write_text(folder / MODELFILE, f"FROM ./{GGUF_FILE}\\n")\n', ""),
    exported("gguf: it is not compared", EXPORT, "again = read_gguf(file)", "again = None"),
    exported("gguf: the record has it not", EXPORT, '        write_text(out / EXPORT_FILE, json.dumps(record, indent=1) + "\\n")\n', ""),
    exported("gguf: a missing converter is found late", GGUF, "        if not file.is_file():\n", "        if False:\n"),
]  # fmt: skip
