"""What is put around a document: the template that joins its text columns, and the prompt before it. Pure."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from bulkembed.errors import ConfigError
from bulkembed.records import Model

# Of Qwen3-Embedding, e5-mistral, gte-Qwen2 and their kin: a task, then the query.
INSTRUCTION = re.compile(r"(?P<before>Instruct: ).*(?P<after>\nQuery: ?)", re.DOTALL)


def check_template(template: str, columns: Sequence[str]) -> None:
    """Raises ValueError unless the fields of the template are the text columns, by their bare names."""
    try:
        fields = [(name, spec, conversion) for _, name, spec, conversion in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ValueError(f"template: {error}") from None
    for name, spec, conversion in fields:
        strange = name not in columns and (not name or name.isdigit() or "." in name or "[" in name)
        if strange or spec or conversion:
            shown = f"{{{name}{'!' + conversion if conversion else ''}{':' + spec if spec else ''}}}"
            raise ValueError(
                f"template: {shown}: a field is the name of a text column and nothing else; "
                "conversions (!), formats (:), attributes, indices and positions are not taken"
            )
    names = {name for name, _, _ in fields}
    if names != set(columns):
        raise ValueError(f"template: its fields {sorted(names)} are not the text columns {sorted(columns)}")


def doubled_prompt(prompt: str, template: str | None, model: Model) -> str | None:
    """The model's own prompt that would begin every document twice, if one would: what people write into a prompt or a
    template although the model's files have it already. White space makes no difference."""
    literal = next((literal for literal, *_ in string.Formatter().parse(template or "")), "")
    before = "".join(f"{prompt}{literal}".split())
    for own in dict.fromkeys((model.document_prompt, model.query_prompt, *(text for _, text in model.prompts))):
        bare = "".join(own.split())
        if bare and before.startswith(bare * 2):
            return own
    return None


def instructed(model: Model, task: str) -> str:
    """The query prompt of an instruction-tuned model with its task replaced. ConfigError for other models."""
    match = INSTRUCTION.fullmatch(model.query_prompt)
    if match is None:
        raise ConfigError(f"instruction: {model.name} has no query prompt of the form 'Instruct: ...\\nQuery:'")
    return f"{match['before']}{task}{match['after']}"


def canonical(template: str | None, columns: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The one spelling of a checked template, and its text columns in the order in which it has them. Without a template, the
    only text column stands alone."""
    if template is None:
        return f"{{{columns[0]}}}", tuple(columns)
    pieces = [(literal, name) for literal, name, _, _ in string.Formatter().parse(template)]
    text = "".join(escaped(literal) + ("" if name is None else f"{{{name}}}") for literal, name in pieces)
    return text, tuple(dict.fromkeys(name for _, name in pieces if name is not None))


def escaped(literal: str) -> str:
    return literal.replace("{", "{{").replace("}", "}}")


def pieces_of(template: str, columns: Sequence[str]) -> list[tuple[str, int | None]]:
    """A canonical template as (literal, number of the text column behind it)."""
    if template == f"{{{columns[0]}}}":  # without a template, the name of the column may hold any character
        return [("", 0)]
    parsed = string.Formatter().parse(template)
    return [(literal, None if name is None else columns.index(name)) for literal, name, _, _ in parsed]
