"""The flags of a run and its TOML file -> RunConfig. A flag has the name of its key; `--set` reaches every other key."""

import functools
import inspect
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import ValidationError

    from pipeline.config import RunConfig
    from pipeline.storage import Store

Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other key: --set engine.step_tokens=4096.")]
Revision = Annotated[str | None, typer.Option(help="Commit, tag or branch of a hub model.")]
Dims = Annotated[str | None, typer.Option(help="Matryoshka dimensions, main one first, as 1024,256. [default: the model's]")]
Dtype = Annotated[str | None, typer.Option(help="Of the vectors: float32, float16, int8 or binary. [default: float32]")]
Vectors = Annotated[str | None, typer.Option(help="Instead of --dims and --dtype: 2560:float16,256:int8,1024:binary.")]
Untrained = Annotated[bool, typer.Option("--allow-untrained-dims", help="Take dimensions that the model was not trained for.")]
Prompt = Annotated[str | None, typer.Option(help="Text before every document. [default: the model's own]")]
Output = Annotated[str, typer.Option(help="Where a run has written its dataset.")]
Elsewhere = Annotated[str | None, typer.Option("--model", help="Where the dataset's model lies on this machine, if elsewhere.")]
StorageOption = Annotated[
    list[str] | None, typer.Option("--set", help="Any other key of the configuration, as in --set storage.anon=true.")
]
PromptName = Annotated[str | None, typer.Option(help="One of the model's own prompts, as in --prompt-name query.")]
Instruction = Annotated[str | None, typer.Option(help="Task of an instruction-tuned model: makes 'Instruct: TASK\\nQuery:'.")]


def run_options(
    config: Annotated[Path | None, typer.Option(help="TOML file with the keys below; flags override it.")] = None,
    source: Annotated[str | None, typer.Option(help="Documents: a URI, prefix or glob of .parquet, .jsonl[.gz|.zst].")] = None,
    output: Annotated[str | None, typer.Option(help="Where the dataset goes: a URI of its own.")] = None,
    model: Annotated[str | None, typer.Option(help="Hub name, or folder with safetensors and sentence-transformers files.")] = None,
    revision: Revision = None,
    id_column: Annotated[str | None, typer.Option(help="Column that names a document. [default: id]")] = None,
    text_column: Annotated[list[str] | None, typer.Option(help="Column to embed; several need --template. [default: text]")] = None,
    template: Annotated[str | None, typer.Option(help=r'Joins text columns, as "{title}\n\n{body}".')] = None,
    keep_column: Annotated[list[str] | None, typer.Option(help="Column to carry into the output.")] = None,
    dims: Dims = None,
    dtype: Dtype = None,
    vectors: Vectors = None,
    allow_untrained_dims: Untrained = False,
    max_tokens: Annotated[int | None, typer.Option(help="What a longer document is, see below. [default: what the model takes]")] = None,
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


def load_config(config: Path | None, settings: list[str] | None, **flags: Any) -> "RunConfig":
    from pipeline.config import merge

    renamed = {"text_column": "text_columns", "keep_column": "keep_columns"}
    overrides = {
        renamed.get(name, name): value for name, value in flags.items() if value is not None and value is not False and value != []
    }
    if "dims" in overrides:
        try:
            overrides["dims"] = [int(part) for part in overrides["dims"].split(",")]
        except ValueError:
            raise ConfigError(f"dims: expected numbers such as 1024,256 (got {overrides['dims']!r})") from None
    for setting in settings or []:
        overrides = merge(overrides, parse_setting(setting))
    return load(config, overrides)


def load(path: Path | None, overrides: dict[str, Any]) -> "RunConfig":
    """The run of a TOML file (if any) with flags laid over it. Raises ConfigError naming the field."""
    from pydantic import ValidationError

    from pipeline.config import RunConfig, merge

    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"--config {path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"--config {path}: not valid TOML: {error}") from None
    try:
        return RunConfig.model_validate(merge(values, overrides))
    except ValidationError as error:
        raise ConfigError(first_line(error)) from None


def first_line(error: "ValidationError") -> str:
    """One line that names the field: `shards.max_rows: Input should be ... (got 0)`."""
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"])
    kind = problem["type"]
    if kind == "missing":
        return f"{field}: is required (a flag --{field.replace('_', '-')}, or a key in the --config file)"
    if kind == "credentials" or field.split(".")[0] == "storage" or field.startswith("engine.env"):  # never shown
        return f"{field}: {problem['msg']}"
    if kind == "extra_forbidden":
        return f"{field}: unknown key"
    message = problem["msg"].removeprefix("Value error, ")
    # The model validator's messages name their field themselves.
    return f"{field}: {message} (got {problem['input']!r})" if field else message


def parse_setting(setting: str) -> dict[str, Any]:
    """`engine.step_tokens=4096` as a table; a value that is not TOML is taken as text."""
    key, equals, value = setting.partition("=")
    if not equals:
        raise ConfigError(f"--set {setting}: expected KEY=VALUE")
    try:
        return tomllib.loads(f"{key} = {value}")
    except tomllib.TOMLDecodeError:
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    try:
        return tomllib.loads(f'{key} = "{quoted}"')
    except tomllib.TOMLDecodeError:
        raise ConfigError(f"--set {setting}: {key!r} is not a key") from None


def storage_of(settings: list[str] | None) -> "Store":
    from pipeline.storage import Store

    values: dict[str, Any] = {}
    for setting in settings or []:
        values |= parse_setting(setting).get("storage", {})
    return Store(values)
