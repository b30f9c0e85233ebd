"""The template that joins the text columns of a document, and the prompt before it. Pure."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from bulkembed.errors import ConfigError
from bulkembed.records import Model

# Query prompts of Qwen3-Embedding, e5-mistral, gte-Qwen2 and models like them hold a task, then the query.
TASK_PROMPT = re.compile(r"(?P<before>Instruct: ).*(?P<after>\nQuery: ?)", re.DOTALL)


def check_template(template: str, columns: Sequence[str]) -> None:
    """Raises ValueError unless the fields of the template are the text columns, by their bare names."""
    try:
        fields = [(name, spec, conversion) for _, name, spec, conversion in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ValueError(f"template: {error}") from None
    for name, spec, conversion in fields:
        is_no_name = name not in columns and (not name or name.isdigit() or "." in name or "[" in name)
        if is_no_name or spec or conversion:
            shown = f"{{{name}{'!' + conversion if conversion else ''}{':' + spec if spec else ''}}}"
            raise ValueError(
                f"template: {shown}: a field is the name of a text column and nothing else; "
                "conversions (!), formats (:), attributes, indices and positions are not taken"
            )
    names = {name for name, _, _ in fields}
    if names != set(columns):
        raise ValueError(f"template: its fields {sorted(names)} are not the text columns {sorted(columns)}")


def find_doubled_prompt(prompt: str, template: str | None, model: Model) -> str | None:
    """A prompt of the model's files that every document would begin with twice, or None.

    People write such a prompt into their prompt or template although the model's files have it. White space makes no difference."""
    literal = next((literal for literal, *_ in string.Formatter().parse(template or "")), "")
    before = "".join(f"{prompt}{literal}".split())
    for own_prompt in dict.fromkeys((model.document_prompt, model.query_prompt, *(text for _, text in model.prompts))):
        bare = "".join(own_prompt.split())
        if bare and before.startswith(bare * 2):
            return own_prompt
    return None


def prompt_for_task(model: Model, task: str) -> str:
    """The query prompt of an instruction-tuned model, with `task` for its own. Raises ConfigError for other models."""
    match = TASK_PROMPT.fullmatch(model.query_prompt)
    if match is None:
        raise ConfigError(f"instruction: {model.name} has no query prompt of the form 'Instruct: ...\\nQuery:'")
    return f"{match['before']}{task}{match['after']}"


def canonical_template(template: str | None, columns: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The one spelling of a checked template, and its text columns in the order in which it has them. Without a template, the
    only text column stands alone."""
    if template is None:
        return f"{{{columns[0]}}}", tuple(columns)
    pieces = [(literal, name) for literal, name, _, _ in string.Formatter().parse(template)]
    text = "".join(escape_braces(literal) + ("" if name is None else f"{{{name}}}") for literal, name in pieces)
    return text, tuple(dict.fromkeys(name for _, name in pieces if name is not None))


def escape_braces(literal: str) -> str:
    return literal.replace("{", "{{").replace("}", "}}")


def template_pieces(template: str, columns: Sequence[str]) -> list[tuple[str, int | None]]:
    """A canonical template as (literal, number of the text column behind it)."""
    if template == f"{{{columns[0]}}}":  # without a template, the name of the column may hold any character
        return [("", 0)]
    parsed = string.Formatter().parse(template)
    return [(literal, None if name is None else columns.index(name)) for literal, name, _, _ in parsed]
