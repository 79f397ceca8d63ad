"""A tool is known by the file that it is written in."""

from types import ModuleType

from align.tools import calling


def test_a_tool_is_known_by_the_file_that_it_is_written_in(tmp_path):
    """The same signature and words, and another body."""
    found = []
    for number, body in enumerate(("query", "query", "query.lower()")):
        file = tmp_path / f"own_{number}.py"
        file.write_text(f"def look(query):\n    return {body}\n")
        module = ModuleType(file.stem)
        exec(compile(file.read_text(), str(file), "exec"), module.__dict__)
        found.append(calling._source(module.look))
    assert found[0] == found[1] != found[2]
