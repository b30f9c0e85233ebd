"""Options of the commands. Those of a run are made from the keys of its configuration: name, type, default and help stand there."""

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from bulkembed.cli.console import HelpOnOutput
from bulkembed.cli.last_line import Call
from bulkembed.config.error_lines import KEYS, MIN_LIKENESS, likeness, nearest_keys
from bulkembed.config.keys import Key, name_in_table
from bulkembed.config.run_config import RunConfig
from bulkembed.config.settings import TEXT_KEYS, join_settings, unescape
from bulkembed.config.toml_files import merge, read_layers, validate
from bulkembed.errors import ConfigError

if TYPE_CHECKING:
    from bulkembed.storage.store import Store

# A key of no table has an option of its own, unless that could only say what is so anyway; --set reaches the others.
RUN_KEYS = [key.name for key in KEYS.values() if "." not in key.name and key.noun != "a table" and key.default != "true"]
PLACEHOLDER = "none"  # of a required key that a command does not need

ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--config",
        metavar="<file>",
        help="TOML file with the keys of a run. Repeatable: later files override earlier ones, options override all. [default: none]",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any other key, as in --set engine.step_tokens=4096. Repeatable. docs/configuration.md has all keys. [default: none]",
    ),
]
StorageSettings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A key of [storage], as in --set storage.anon=true. Repeatable. [default: none]"),
]
Output = Annotated[str | None, typer.Option(metavar="<string>", help="Location of the dataset. [required, here or in --config]")]
Source = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        metavar="<string>",
        help="Documents that the dataset was made of; for --sample. Repeatable. [default: as in --config]",
    ),
]
DatasetModel = Annotated[
    str | None,
    typer.Option("--model", metavar="<string>", help="Where the dataset's model lies on this machine. [default: where the run had it]"),
]
QueryPromptName = Annotated[
    str | None,
    typer.Option(
        "--prompt-name", metavar="<string>", help="One of the model's prompts, to put before the query. [default: its query prompt]"
    ),
]
SnapshotNumber = Annotated[
    int | None, typer.Option("--snapshot", min=1, metavar="<integer>", help="Number of the snapshot to read. [default: the current one]")
]
QueryInstruction = Annotated[
    str | None,
    typer.Option(
        "--instruction",
        parser=unescape,
        metavar="<string>",
        help=r"Task of an instruction-tuned model: puts 'Instruct: TASK\nQuery:' before the query. [default: the model's own]",
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--tokens-per-second", metavar="<number>", help="Speed of the whole cluster: adds hours to the estimate. [default: no hours]"
    ),
]
HourPrice = Annotated[
    float | None,
    typer.Option(
        "--price-per-hour", metavar="<number>", help="Price of the whole cluster, in any currency: adds the cost. [default: no cost]"
    ),
]
ApiPrice = Annotated[
    float | None,
    typer.Option(
        "--api-price",
        metavar="<number>",
        help="Price that an API takes for embedding a million tokens, to compare. [default: no comparison]",
    ),
]


class Command(HelpOnOutput, TyperCommand):
    """A command that answers an unknown option with a similar one, and refuses an option of one value that is given twice.

    click would take the last of the two without a word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        except Exception as error:
            if not hasattr(error, "possibilities"):  # as click's NoSuchOption has, which typer keeps to itself
                raise
            written: str = vars(error)["option_name"]
            raise ConfigError(f"{written}: no such option{self.advice(written)}") from None
        for parameter, count in Counter(order).items():
            if count > 1 and not getattr(parameter, "multiple", True) and not getattr(parameter, "is_flag", False):
                raise ConfigError(f"{parameter.opts[0]}: is given {count} times, and takes one value")
        return super().parse_args(ctx, args)

    def advice(self, written: str) -> str:
        """What somebody who gave an unknown option may have meant, or nothing."""
        scores = {option: likeness(key_name(written), key_name(option)) for parameter in self.params for option in parameter.opts}
        best = max(scores.values())
        similar = [option for option, score in scores.items() if score == best >= MIN_LIKENESS]
        return f"; did you mean {' or '.join(similar)}?" if similar else ""


class RunCommand(Command):
    """A command that takes the keys of a run."""

    def advice(self, written: str) -> str:
        """A key of a table, which has no option of its own, comes before a similar option."""
        key = key_name(written)
        spellings = {name: (name, name_in_table(name), name.replace(".", "_")) for name in KEYS if name not in RUN_KEYS}
        keys = [name for name in nearest_keys(key) if key in spellings.get(name, ())]
        return f"; give {' or '.join(f'--set {name}=VALUE' for name in keys)}" if keys else super().advice(written)


def key_name(option: str) -> str:
    """`text_column` of `--text-column`."""
    return option.lstrip("-").replace("-", "_")


def option_of(key: Key) -> inspect.Parameter:
    """The option of a key. The configuration gets its value as text, so that a wrong value has the same answer from everywhere."""
    kind: Any = bool if key.annotation is bool else list[str] if key.repeats else str
    option = typer.Option(
        flag_of(key),
        metavar=None if kind is bool else metavar(key),
        help=help_text(key),
        parser=unescape if key.name in TEXT_KEYS else None,
    )
    return optional(key.name, Annotated[kind | None, option])


def optional(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=annotation)


def flag_of(key: Key) -> str:
    """`--text-column` of `text_columns`, which is given once for each of them."""
    return "--" + (key.name.removesuffix("s") if key.repeats else key.name).replace("_", "-")


def metavar(key: Key) -> str:
    if key.choices:
        return f"[{'|'.join(key.choices)}]"
    kinds = {"an integer": "integer", "a number": "number", "a list of integers": "integer,...", "a list of DIM:DTYPE": "dim:dtype,..."}
    return f"<{kinds.get(key.noun, 'string')}>"


def help_text(key: Key) -> str:
    default = "required, here or in --config" if key.default is None else f"default: {key.default}"
    return f"{key.description}{' Repeatable.' if key.repeats else ''} [{default}]"


def takes_run_keys(
    command: Callable[..., None], keys: Sequence[str] = RUN_KEYS, unneeded: Sequence[str] = (), idle: Collection[str] = ()
) -> Callable[..., None]:
    """Gives a command --config, --set and the options of `keys`, and hands it the RunConfig that they make.

    `unneeded`: required keys that this command does without; it has no option for them. `idle`: keys and tables that do nothing here,
    which --set refuses and a file may hold."""
    shared = {
        "context": inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        "config": optional("config", ConfigFiles),
        **{name: option_of(KEYS[name]) for name in keys if name not in unneeded},
        "settings": optional("settings", Settings),
    }
    own = dict(list(inspect.signature(command).parameters.items())[1:])

    @functools.wraps(command)
    def wrapped(**options: Any) -> None:
        defaults = Call.of(options["context"]).defaults
        own_options = {name: options.pop(name) for name in own}
        options.pop("context", None)
        refuse_idle(options["settings"], idle)
        command(load_config(unneeded=unneeded, defaults=defaults, **options), **own_options)

    wrapped.__signature__ = inspect.Signature(list((shared | own).values()))  # type: ignore[attr-defined]
    wrapped.__annotations__ = {name: parameter.annotation for name, parameter in (shared | own).items()}
    return wrapped


def refuse_idle(settings: Sequence[str] | None, idle: Collection[str]) -> None:
    """Raises ConfigError where --set gives a key that the command does not heed."""
    given = sorted(join_settings({}, settings).keys() & set(idle))
    if given:
        raise ConfigError(f"--set {given[0]}: does nothing here")


def load_config(
    config: Sequence[Path] | None,
    settings: Sequence[str] | None,
    unneeded: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
    **options: Any,
) -> RunConfig:
    """`options`: by the names of their keys, None or empty where they are not given. `defaults` lie below files and options."""
    values = merge(dict(defaults or {}), read_layers(config, join_settings(without_absent(options), settings)))
    return validate(dict.fromkeys(unneeded, PLACEHOLDER) | values, settings or ())


def without_absent(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value not in (None, False, [])}


@dataclass(frozen=True)
class Places:
    """Where a dataset is, and where the documents and the model are that it was made of, if that was given."""

    output: str
    sources: tuple[str, ...]  # empty where none was given
    model: str | None
    store: "Store"


def places(config: Sequence[Path] | None, settings: Sequence[str] | None, **options: str | list[str] | None) -> Places:
    """Of commands that need no more of a configuration. They take its other keys from a file, and none of them by --set."""
    from bulkembed.storage.store import Store

    others = sorted(join_settings({}, settings).keys() - {"storage"})
    if others:
        raise ConfigError(f"--set {others[0]}: does nothing here; this command takes keys of [storage] alone, as in storage.anon=true")
    values = read_layers(config, join_settings(without_absent(options), settings))
    cfg = validate({"source": PLACEHOLDER, "model": PLACEHOLDER} | values, settings or ())
    sources, model = cfg.sources if "source" in values else (), cfg.model if "model" in values else None
    return Places(cfg.output, sources, model, Store(cfg.storage))
