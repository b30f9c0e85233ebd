"""Draw the output of scripts/demo as a terminal in SVG: scripts/samples/picture.py TEXT SVG.

GitHub shows an SVG as an image: it loads no fonts from elsewhere, so the picture names fonts that a reader's machine has.
"""

from __future__ import annotations

import argparse
import io
import re
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = 100
FONTS = 'ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace'
LINES_LEFT_OUT = re.compile(r"^setup: ")


def lines_of(output: str) -> list[str]:
    """The lines to draw: without the folder of this clone, and as wide as the picture."""
    lines = output.replace(f"{ROOT}/", "").splitlines()
    shown = [line if len(line) <= COLUMNS else f"{line[: COLUMNS - 1]}…" for line in lines if not LINES_LEFT_OUT.match(line)]
    return ["$ scripts/demo", "", *"\n".join(shown).strip().splitlines()]


def styled(line: str) -> Text:
    """The command and the headings in yellow, names of figures in blue, scores and rates in green."""
    if line.startswith(("== ", "$ ")):
        return Text(line, style="bold yellow")
    text = Text(line)
    text.highlight_regex(r"^  \w[\w ]{0,12}(?= {2})|^ +(title|text):", "cyan")
    text.highlight_regex(r"^\d\.\d{3}(?=  )", "bold green")
    text.highlight_regex(r"[\d,]+ tokens/s", "green")
    return text


def picture(output: str) -> str:
    """The SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in lines_of(output):
        console.print(styled(line), soft_wrap=True)
    template = re.sub(r"    @font-face \{\{.*?\n    \}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    template = template.replace("Fira Code, monospace", FONTS)
    drawn = console.export_svg(title="bulkembed", code_format=template, unique_id="demo")
    return "\n".join(line.rstrip() for line in drawn.splitlines() if line.strip()) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the output of scripts/demo as SVG.")
    parser.add_argument("text", type=Path, help="what scripts/demo printed")
    parser.add_argument("svg", type=Path, help="where the picture goes")
    options = parser.parse_args()
    options.svg.write_text(picture(options.text.read_text(encoding="utf-8")), encoding="utf-8")
