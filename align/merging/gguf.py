"""Has llama.cpp's own converter make a GGUF file of an exported model, which llama.cpp and Ollama run."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM

from align.errors import RunError
from align.files import SCRATCH, write_text
from align.findings import printable

logger = logging.getLogger(__name__)

CONVERTER = "convert_hf_to_gguf.py"
GGUF_FILE, MODELFILE = "model.gguf", "Modelfile"
OUTTYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


def find_converter(named: Path | None) -> list[str]:
    """The command of the converter: of a file this interpreter runs it, of one on PATH its own.

    Raises:
        RunError: If there is none.
    """
    if named is not None:
        file = named / CONVERTER if named.is_dir() else named
        if not file.is_file():
            raise RunError(
                f"--converter: {file}: no such file; name {CONVERTER} of llama.cpp, or the folder it lies in"
            )
        return [sys.executable, str(file)]
    found = shutil.which(CONVERTER)
    if found is None:
        raise RunError(f"--gguf: {CONVERTER} of llama.cpp is not on PATH; name it by --converter FILE")
    return [found]


def write_gguf(folder: Path, converter: list[str], dtype: str) -> Path:
    """Convert an exported model, with weights as they are; a Modelfile for Ollama lies beside it.

    Args:
        folder: Of the export.
        converter: As `find_converter` gives it.
        dtype: Of the export's weights.

    Returns:
        The file, in the folder.

    Raises:
        RunError: If the converter fails, with the last line it said; the export stays.
    """
    half = folder / f"{SCRATCH}{GGUF_FILE}"
    command = [*converter, str(folder), "--outfile", str(half), "--outtype", OUTTYPES[dtype]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
        if done.returncode or not half.is_file():
            said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
            raise RunError(
                f"{folder}: is written, but {converter[-1]} made no GGUF file of it: {printable(said[-1], 500)}; "
                f"mend that, and run {' '.join([*command[:-3], str(folder / GGUF_FILE), *command[-2:]])}"
            )
        os.replace(half, folder / GGUF_FILE)
    except OSError as error:
        raise RunError(f"{folder}: is written, but {converter[0]} cannot be run: {error.strerror}") from None
    finally:
        half.unlink(missing_ok=True)
    write_text(folder / MODELFILE, f"FROM ./{GGUF_FILE}\n")
    return folder / GGUF_FILE


def read_gguf(file: Path) -> Any | None:
    """The model of a GGUF file in float32, as transformers reads it; None where it cannot."""
    try:
        return AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype="float32").eval()
    except (ValueError, KeyError, NotImplementedError, ImportError) as error:
        logger.warning("%s: transformers cannot read it back: %s", file, printable(str(error), 300))
        return None
