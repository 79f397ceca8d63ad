"""Every report that a test of the evaluation writes is held against the schema."""

import json
from importlib import import_module

import pytest


@pytest.fixture(scope="session", autouse=True)
def reports_fit_the_schema():
    write, schema = import_module("eval.report.write"), import_module("eval.report.schema")
    original = write.to_json

    def checked(report):
        text = original(report)
        assert schema.problems(json.loads(text)) == []
        return text

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "to_json", checked)
        yield
