"""docs/configuration.md says what the models say, and its example is a configuration."""

from __future__ import annotations

import re
import tomllib

from bulkembed.config.run_config import RunConfig
from bulkembed.config.toml_files import load
from scripts.samples.configuration import EXAMPLE, PAGE, page


def test_the_page_is_what_the_models_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "docs/configuration.md is out of date: run scripts/configuration"


def test_the_example_loads_as_a_file() -> None:
    assert load([EXAMPLE], {}).dims == (1024, 256)


def test_each_line_of_the_example_that_is_commented_out_is_a_key_of_its_table() -> None:
    table = ""
    n_keys = 0
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"\[(\w+)\]", line):
            table = heading[1]
        elif line.startswith("# "):
            key = tomllib.loads(line.removeprefix("# "))
            windows = {"long_documents": "mean"} if "chunk" in line else {}
            RunConfig.model_validate({"source": "in", "output": "out", "model": "m", **windows, **({table: key} if table else key)})
            n_keys += 1
    assert n_keys > 20
