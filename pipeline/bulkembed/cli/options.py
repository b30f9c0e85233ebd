"""The flags of a run and its TOML file -> RunConfig. A flag has the name of its key; `--set` reaches every other key."""

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from bulkembed.config.credentials import REFUSED, shows_credentials
from bulkembed.config.settings import join_settings, unescape
from bulkembed.errors import ConfigError

if TYPE_CHECKING:
    from bulkembed.config.run_config import RunConfig
    from bulkembed.storage.store import Store


def refuse_credentials(parameter: typer.CallbackParam, value: str | None) -> str | None:
    """Of a place that no RunConfig looks at."""
    if value and shows_credentials(value):
        raise ConfigError(f"{parameter.name}: {REFUSED}")
    return value


Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other key: --set engine.step_tokens=4096.")]
Revision = Annotated[str | None, typer.Option(help="Commit, tag or branch of a hub model.")]
Dims = Annotated[str | None, typer.Option(help="Matryoshka dimensions, main one first, as 1024,256. [default: the model's]")]
Dtype = Annotated[str | None, typer.Option(help="Of the vectors: float32, float16, int8 or binary. [default: float32]")]
Vectors = Annotated[str | None, typer.Option(help="Instead of --dims and --dtype: 2560:float16,256:int8,1024:binary.")]
Untrained = Annotated[bool, typer.Option("--allow-untrained-dims", help="Take dimensions that the model was not trained for.")]
Prompt = Annotated[
    str | None,
    typer.Option(parser=unescape, metavar="<str>", help="Text before every document; \\n is a line break. [default: the model's own]"),
]
Output = Annotated[str, typer.Option(callback=refuse_credentials, help="Where a run has written its dataset.")]
Elsewhere = Annotated[
    str | None,
    typer.Option("--model", callback=refuse_credentials, help="Where the dataset's model lies on this machine, if elsewhere."),
]
Original = Annotated[str | None, typer.Option("--source", callback=refuse_credentials, help="The documents that the dataset was made of.")]
StorageOption = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A key of [storage]: --set storage.anon=true.")]
PromptName = Annotated[str | None, typer.Option(help="One of the model's own prompts, as in --prompt-name query.")]
Instruction = Annotated[
    str | None,
    typer.Option(parser=unescape, metavar="<str>", help="Task of an instruction-tuned model: makes 'Instruct: TASK\\nQuery:'."),
]
Rate = Annotated[float | None, typer.Option("--tokens-per-second", help="Of the whole cluster: shows the hours that the estimate takes.")]
HourPrice = Annotated[
    float | None, typer.Option("--price-per-hour", help="Of the whole cluster, in any currency: shows what the hours cost.")
]
ApiPrice = Annotated[float | None, typer.Option("--api-price", help="Of a million tokens of an API that embeds too, to compare.")]


class Command(TyperCommand):
    """A command that refuses an option of one value where it is given twice; click takes the last without a word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for parameter, count in Counter(order).items():
            if count > 1 and not getattr(parameter, "multiple", True) and not getattr(parameter, "is_flag", False):
                raise ConfigError(f"{parameter.opts[0]}: is given {count} times, and takes one value")
        return super().parse_args(ctx, args)


def run_options(
    config: Annotated[
        list[Path] | None, typer.Option(help="TOML file with the keys below; of several, later ones override. Flags override all.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Documents: an object, prefix or glob of .parquet, .jsonl, .json[.gz|.zst].")] = None,
    output: Annotated[str | None, typer.Option(help="Where the dataset goes: a URI of its own.")] = None,
    model: Annotated[str | None, typer.Option(help="Hub name, or folder with safetensors and sentence-transformers files.")] = None,
    revision: Revision = None,
    id_column: Annotated[str | None, typer.Option(help="Column that names a document. [default: id]")] = None,
    text_column: Annotated[list[str] | None, typer.Option(help="Column to embed; several need --template. [default: text]")] = None,
    template: Annotated[
        str | None,
        typer.Option(parser=unescape, metavar="<str>", help=r"Joins text columns, as '{title}\n\n{body}'; \n is a line break."),
    ] = None,
    keep_column: Annotated[list[str] | None, typer.Option(help="Column to carry into the output.")] = None,
    dims: Dims = None,
    dtype: Dtype = None,
    vectors: Vectors = None,
    allow_untrained_dims: Untrained = False,
    max_tokens: Annotated[
        int | None,
        typer.Option(help="Token limit of a document; see --long-documents for longer ones. [default: the model's]"),
    ] = None,
    long_documents: Annotated[
        str | None,
        typer.Option(
            help="truncate, chunk (windows, each a row), mean (of the windows' vectors) or reject. [default: truncate]",
        ),
    ] = None,
    chunk_tokens: Annotated[int | None, typer.Option(help="Most tokens of a window. [default: --max-tokens]")] = None,
    chunk_overlap: Annotated[int | None, typer.Option(help="Tokens that a window repeats of the one before. [default: 0]")] = None,
    prompt: Prompt = None,
    prompt_name: PromptName = None,
    instruction: Instruction = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N rows of the source.")] = None,
    allow_deletes: Annotated[
        int | None, typer.Option(help="Rows that this run may drop from the dataset, whatever the cause. [default: by max_deletes]")
    ] = None,
    settings: Settings = None,
) -> None:
    """The flags that `plan` and `run` share; None where not given."""


def configured(command: Callable[..., None], **fixed: Any) -> Callable[..., None]:
    """Gives a command the flags of `run_options` but those that are `fixed`, and hands it the RunConfig they make."""
    shared = {name: parameter for name, parameter in inspect.signature(run_options).parameters.items() if name not in fixed}
    own = dict(list(inspect.signature(command).parameters.items())[1:])

    @functools.wraps(command)
    def wrapped(**flags: Any) -> None:
        mine = {name: flags.pop(name) for name in own}
        command(load_config(**flags, **fixed), **mine)

    wrapped.__signature__ = inspect.Signature([*shared.values(), *own.values()])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {name: parameter.annotation for name, parameter in (shared | own).items()}
    return wrapped


def load_config(config: Sequence[Path] | None, settings: list[str] | None, **flags: Any) -> "RunConfig":
    from bulkembed.config.toml_files import load

    renamed = {"text_column": "text_columns", "keep_column": "keep_columns"}
    overrides = {
        renamed.get(name, name): value for name, value in flags.items() if value is not None and value is not False and value != []
    }
    if "dims" in overrides:
        try:
            overrides["dims"] = [int(part) for part in overrides["dims"].split(",")]
        except ValueError:
            raise ConfigError(f"dims: expected numbers such as 1024,256 (got {overrides['dims']!r})") from None
    return load(config, join_settings(overrides, settings), settings or ())


def storage_of(settings: list[str] | None) -> "Store":
    from bulkembed.storage.store import Store

    values = join_settings({}, settings)
    others = sorted(values.keys() - {"storage"})
    if others:
        raise ConfigError(f"--set {others[0]}: does nothing here; this command takes keys of [storage] alone, as in storage.anon=true")
    options = values.get("storage", {})
    if not isinstance(options, dict):
        raise ConfigError("--set storage: is a table; give its keys, as in storage.anon=true")
    return Store(options)
