"""A model's modules.json -> how it makes a vector of its tokens' states: pooling, then linear layers, then norm 1.

A module is known by its exact type, and refused where it is another or stands at another place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from bulkembed.embedding.settings_file import Settings, read_json, read_settings, settings_if_there
from bulkembed.embedding.weight_files import tensors_of
from bulkembed.errors import ModelError
from bulkembed.records import Pooling

Kind = Literal["Transformer", "Pooling", "Dense", "Normalize"]
MODULES_FILE = "modules.json"
DENSE_WEIGHTS = "model.safetensors"  # in the folder of a linear layer
# The types that releases of sentence-transformers have written, in the order in which modules may stand.
TYPES: dict[str, Kind] = {
    "sentence_transformers.models.Transformer": "Transformer",
    "sentence_transformers.base.modules.transformer.Transformer": "Transformer",
    "sentence_transformers.models.Pooling": "Pooling",
    "sentence_transformers.sentence_transformer.modules.pooling.Pooling": "Pooling",
    "sentence_transformers.models.Dense": "Dense",
    "sentence_transformers.base.modules.dense.Dense": "Dense",
    "sentence_transformers.models.Normalize": "Normalize",
    "sentence_transformers.base.modules.normalize.Normalize": "Normalize",
    "sentence_transformers.sentence_transformer.modules.normalize.Normalize": "Normalize",
}
ORDER: tuple[Kind, ...] = ("Transformer", "Pooling", "Dense", "Normalize")
POOLING_MODES: dict[str, Pooling] = {"lasttoken": "last", "mean": "mean", "cls": "cls"}
LEGACY_MODES = {"pooling_mode_lasttoken": "lasttoken", "pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
PLAIN_FOLDER = re.compile(r"\w[\w.-]*")
NO_ACTIVATION = "torch.nn.modules.linear.Identity"
ACTIVATIONS = (NO_ACTIVATION, "torch.nn.modules.activation.Tanh")  # vLLM and sentence-transformers make the same of these


@dataclass(frozen=True)
class Module:
    kind: Kind
    folder: str  # below the model's; empty for the model's own


@dataclass(frozen=True)
class Dense:
    """A linear layer between the pooled state and the vector."""

    folder: str
    in_features: int
    out_features: int
    bias: bool
    activation: str


def read_modules(folder: Path) -> list[Module]:
    """Raises ModelError for a module that bulkembed does not know, or that stands where it does not know it."""
    path = folder / MODULES_FILE
    values = read_json(path)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ModelError(f"{path}: expected a list of modules (got {str(values)[:60]!r})")
    modules = [read_module(Settings(f"{path}: module {number}", value)) for number, value in enumerate(values)]
    kinds = [module.kind for module in modules]
    for kind in ("Transformer", "Pooling"):
        if kinds.count(kind) != 1:
            raise ModelError(f"{path}: lists {kinds.count(kind)} {kind} modules, and a model needs one")
    if kinds[0] != "Transformer" or any(ORDER.index(first) > ORDER.index(second) for first, second in pairwise(kinds)):
        raise ModelError(f"{path}: modules in the order {', '.join(kinds)} are not supported; the order must be {', '.join(ORDER)}")
    if modules[0].folder:
        raise ModelError(
            f"{path}: the Transformer's files lie in {modules[0].folder}/, from where they are not read; "
            f'move them into {folder}, and set the module\'s path to ""'
        )
    return modules


def read_module(entry: Settings) -> Module:
    entry.refuse_others(("idx", "name", "path", "type"))
    kind, folder = TYPES.get(entry.text("type") or ""), (entry.text("path") or "").rstrip("/")
    if kind is None:
        raise ModelError(f"{entry.place}: type {str(entry.text('type'))[:80]!r} is not supported (those of {', '.join(ORDER)} are)")
    if folder and not PLAIN_FOLDER.fullmatch(folder):
        raise entry.error("path", "the name of a folder beside modules.json")
    return Module(kind, folder)


def module_settings(folder: Path, module: Module) -> Settings:
    return settings_if_there(folder / module.folder / "config.json")


def pooling_of(folder: Path, modules: list[Module], width: int) -> Pooling:
    """`width`: components of a token's state, which are those of the pooled one."""
    module = next(module for module in modules if module.kind == "Pooling")
    settings = read_settings(folder / module.folder / "config.json")
    legacy = [name for name in settings.values if name.startswith("pooling_mode_")]
    settings.refuse_others((*legacy, "pooling_mode", "include_prompt", "word_embedding_dimension", "embedding_dimension"))
    stated = settings.values.get("pooling_mode")
    modes: list[Any] = [LEGACY_MODES.get(name, name) for name in legacy if settings.flag(name)]
    modes += stated if isinstance(stated, list) else [stated] * (stated is not None)
    if len({str(mode) for mode in modes}) != 1 or str(modes[0]) not in POOLING_MODES:
        raise ModelError(f"{settings.place}: pooling {modes} is not supported; one of {', '.join(POOLING_MODES)} must be on")
    if settings.flag("include_prompt") is False:
        raise ModelError(f"{settings.place}: leaves the prompt out of the pooling (include_prompt false), which is not supported")
    stated_width = settings.whole_number("embedding_dimension", "word_embedding_dimension")
    if stated_width not in (None, width):
        raise ModelError(f"{settings.place}: pools states of {stated_width} components, but those of config.json have {width}")
    return POOLING_MODES[str(modes[0])]


def require_plain_norm(folder: Path, modules: list[Module]) -> None:
    for module in modules:
        if module.kind == "Normalize":
            settings = module_settings(folder, module) if module.folder else Settings("", {})
            settings.refuse_others(("module_input_name", "module_output_name"))
            for name in ("module_input_name", "module_output_name"):
                settings.require_only(name, ["sentence_embedding"], "another value than the vector is normalised")


def dense_layers(folder: Path, modules: list[Module], pooling: Pooling, width: int) -> tuple[Dense, ...]:
    """The linear layers after the pooling, each checked against its weights. vLLM leaves out a layer that it cannot load."""
    layers = []
    for module in modules:
        if module.kind == "Dense":
            layer = read_dense(folder, module, pooling)
            if layer.in_features != width:
                raise ModelError(f"{folder / module.folder}: takes {layer.in_features} components, but gets {width}")
            width = layer.out_features
            layers.append(layer)
    return tuple(layers)


def read_dense(folder: Path, module: Module, pooling: Pooling) -> Dense:
    settings = read_settings(folder / module.folder / "config.json")
    names = ("in_features", "out_features", "bias", "activation_function", "module_input_name", "module_output_name", "use_residual")
    settings.refuse_others(names)
    settings.require_only("use_residual", [False], "the input is added to the output")
    for name in ("module_input_name", "module_output_name"):
        settings.require_only(name, ["sentence_embedding"], "another value than the vector goes through the layer")
    activation = settings.text("activation_function")
    if activation not in ACTIVATIONS:
        raise ModelError(f"{settings.place}: activation_function {activation!r} is not supported; {' and '.join(ACTIVATIONS)} are")
    if pooling == "mean" and activation != NO_ACTIVATION:
        raise ModelError(f"{settings.place}: {activation} after mean pooling is not supported, since the checks cannot prove it")
    bias = settings.flag("bias") is not False
    layer = Dense(module.folder, settings.needed_number("in_features"), settings.needed_number("out_features"), bias, activation)
    require_weights(folder / module.folder / DENSE_WEIGHTS, layer)
    return layer


def require_weights(path: Path, layer: Dense) -> None:
    wanted: dict[str, list[int]] = {"linear.weight": [layer.out_features, layer.in_features]}
    if layer.bias:
        wanted["linear.bias"] = [layer.out_features]
    found = {name: tensor.get("shape") for name, tensor in tensors_of(path).items()}
    if found != wanted:
        raise ModelError(f"{path}: holds {str(found)[:120]}, but config.json beside it asks for {wanted}")
