"""Checks the twins against the reference libraries, and writes what became of each into docs/models.md.

    python -m scripts.samples.model_table [NAME ...]

It takes about a minute for each twin: vLLM and both libraries load it in processes of their own.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bulkembed.embedding import model_files
from bulkembed.errors import ModelError
from scripts.samples import random_qwen3, twin_files
from scripts.samples.twins import TWINS

DOCUMENT = Path(__file__).resolve().parent.parent.parent / "docs" / "models.md"
QWEN3 = "qwen3-embedding"
SIZES = ("0.6B", "4B", "8B")
MODELS = {QWEN3: tuple(f"Qwen/Qwen3-Embedding-{size}" for size in SIZES)} | {name: twin.models for name, twin in TWINS.items()}
NO_PROMPTS = "its files have no prompts: give `--prompt 'passage: '`"
NOTES = dict.fromkeys(MODELS, "") | {
    QWEN3: "dimensions of 32 and more",
    "bge-m3": "where its folder has safetensors, not only PyTorch weights",
    "e5": NO_PROMPTS,
    "multilingual-e5-small": NO_PROMPTS,
    "multilingual-e5": NO_PROMPTS,
    "nomic": "its files have no prompts: give `--prompt 'search_document: '`",
}
START, END = "| model | twin | result |", "\n\n"
UNCOMPARED = "not compared yet"
# Only the model's own code makes weights that vLLM takes for nomic. Qwen2's tokenizer class cuts words by a rule of its own, whatever
# tokenizer.json says; the twin's file has another one, so that token ids differ.
WITHOUT_TWIN = {
    "nomic": "not compared, for want of a twin with its weights",
    "stella": "not compared, for want of a twin with its tokenizer",
}
COSINE = re.compile(r"(?:sentence-)?transformers: .*cosine min ([\d.-]+) .*tokens equal (\d+)/(\d+)")


def make(folder: Path, name: str) -> None:
    if name == QWEN3:
        random_qwen3.make(folder, "tiny")
    else:
        twin_files.make(folder, TWINS[name])


def result_of_files(name: str) -> str:
    """What the files of a twin say, without its weights."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / name
        twin_files.describe(folder, TWINS[name])
        (folder / "model.safetensors").write_bytes(twin_files.WEIGHTS_OF_NOTHING)
        try:
            found = model_files.describe(str(folder), None)
        except ModelError as error:
            return result_of("", f"bulkembed: {error}", folder, error.exit_code)
        return f"its files are read: {found.pooling} pooling, at most {found.max_tokens} tokens; {WITHOUT_TWIN.get(name, UNCOMPARED)}"


def check(folder: Path) -> str:
    """What `bulkembed check --reference` says of a model in float32, in a few words."""
    command = [sys.executable, "-m", "bulkembed", "check", "--model", str(folder), "--reference", "--set", "engine.dtype=float32"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return result_of(ran.stdout, ran.stderr, folder, ran.returncode)


def result_of(output: str, errors: str, folder: Path, code: int) -> str:
    found = COSINE.findall(output)
    if not code:
        least = min(float(cosine) for cosine, _, _ in found)
        equal, texts = sum(int(equal) for _, equal, _ in found), sum(int(texts) for _, _, texts in found)
        return f"loads: least cosine {least:.7f}, token ids equal {equal} of {texts}"
    lines = [line for line in errors.splitlines() if line.startswith("bulkembed: ")] or errors.splitlines()[-1:] or ["no word why"]
    reason = lines[-1].removeprefix("bulkembed: ").replace(f"{folder}/", "").replace(str(folder), "it").replace("|", "&#124;")
    return f"refused: {reason[:240]}"


def rows(results: dict[str, str]) -> Iterator[str]:
    """One row for each twin of which there is a result."""
    yield START
    yield "| --- | --- | --- |"
    for name, models in MODELS.items():
        if name in results:
            note = f" ({NOTES[name]})" if NOTES[name] else ""
            yield f"| {', '.join(models)} | `{name}` | {results[name]}{note} |"


def stated_results(text: str) -> dict[str, str]:
    """The results in the table of docs/models.md, by twin, without the notes."""
    found = dict(re.findall(r"^\| [^|]+ \| `([\w.-]+)` \| ([^|]+) \|$", text, re.MULTILINE))
    return {name: result.removesuffix(f" ({NOTES[name]})").strip() for name, result in found.items() if name in MODELS}


def main() -> None:
    parser = argparse.ArgumentParser(description="Checks small twins of embedding models, and writes docs/models.md.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(MODELS)} (default: all)")
    parser.add_argument("--files-only", action="store_true", help="read the files of twins that have no row yet, and load none")
    options = parser.parse_args()
    names = options.names or list(MODELS)
    if options.files_only:
        stated = stated_results(DOCUMENT.read_text(encoding="utf-8"))
        return write({name: result_of_files(name) for name in names if name not in stated})
    for name in names:
        if name in WITHOUT_TWIN:
            write({name: result_of_files(name)})
            continue
        folder = Path(tempfile.mkdtemp()) / name
        make(folder, name)
        result = check(folder)
        shutil.rmtree(folder.parent)
        sys.stdout.write(f"{name}: {result}\n")
        write({name: result})


def write(results: dict[str, str]) -> None:
    """Writes new results into the table, and leaves the others as they are."""
    text = DOCUMENT.read_text(encoding="utf-8")
    table = "\n".join(rows(stated_results(text) | results))
    before, _, rest = text.partition(START)
    DOCUMENT.write_text(f"{before}{table}{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
