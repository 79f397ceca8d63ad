"""What rounds make, for tests that compare runs."""


def made(folder):
    """The files that must be the same, however often it was stopped."""
    named = [
        *folder.glob("round-*/*.jsonl"),
        *folder.glob("round-*/answers/*.jsonl"),
        *folder.glob("**/adapter/*.safetensors"),
    ]
    return {str(path.relative_to(folder)): path.read_bytes() for path in named}
