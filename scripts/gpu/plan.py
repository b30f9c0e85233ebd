"""The rows in the order in which they are measured: the cheapest and most informative first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Kind = Literal["card", "engines", "job", "peer"]
Result = dict[str, Any]  # a measured row: JSON values

BOUND_FILE = "GPU_CHECK_STEP_FILE"  # environment variable with the file of the step bound, since the scheduler is in another process
FP8 = "fp8_per_channel"  # vLLM 0.32's name of online fp8 with a scale for each output channel and each token
STARTUP_PLAN = {"VLLM_ENABLE_STARTUP_PLAN": "1"}
SPAWN = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}  # as in a Ray actor, and in a process that already has an engine
ROW_PATIENCE = (3, 30.0)  # a child is ended when a row takes so many times its estimate and so many seconds more


@dataclass(frozen=True)
class Row:
    """A row, and the seconds that it should take on one H100. The first row of a child has the seconds of its start."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Group:
    """Rows that one child measures in this order."""

    name: str
    kind: Kind
    rows: tuple[Row, ...]
    shape: str = "4B"
    args: Mapping[str, Any] = field(default_factory=dict)  # of `vllm.LLM`
    env: Mapping[str, str] = field(default_factory=dict)
    dry_child: str = "own"  # groups with the same name share a child in a dry run, unless it is "own"

    def only(self, names: Collection[str]) -> Group:
        """The group with these rows alone. Its first row has the seconds of loading the engine."""
        first, rows = self.rows[0], [row for row in self.rows if row.name in names]
        if self.kind == "engines" and rows and rows[0] is not first:
            rows[0] = replace(rows[0], seconds=rows[0].seconds + first.seconds)
        return replace(self, rows=tuple(rows))


def engine_group(name: str, *rows: Row, **settings: Any) -> Group:
    return Group(name, "engines", rows, **({"dry_child": "shared"} | settings))


GROUPS = (
    Group("card", "card", (Row("gemm", 15), Row("models", 25)), dry_child="card"),
    engine_group(
        "engine",
        Row("start-cold", 90),
        Row("preflight", 2),
        Row("direct", 8),
        Row("engine-32k", 8),
        Row("engine-8k", 7),
        Row("engine-16k", 7),
        Row("cosine", 15),
        Row("engine-512", 7),
        Row("long", 12),
        env=STARTUP_PLAN,
        dry_child="multiprocessing",
    ),
    Group("job", "job", (Row("job", 95),)),
    engine_group("warm", Row("start-warm", 35)),
    engine_group("fp8", Row("fp8", 80), args={"quantization": FP8}),
    engine_group("plan", Row("start-plan", 30), env=STARTUP_PLAN),
    engine_group("two", Row("one-engine", 75), Row("two-engines", 40), shape="0.6B", env=SPAWN),
    engine_group("in-process", Row("start-in-process", 40), env={"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}),
    engine_group("spawn", Row("start-spawn", 45), env=SPAWN),
    engine_group("eager", Row("start-eager", 30), args={"enforce_eager": True}),
    Group("peer", "peer", (Row("sentence-transformers", 40),), dry_child="shared"),
    engine_group("fp8-tensor", Row("fp8-tensor", 60), args={"quantization": "fp8_per_tensor"}),
    Group("card-8B", "card", (Row("models-8B", 30),), shape="8B", dry_child="card"),
    engine_group("8B", Row("engine-8B", 110), shape="8B"),
)
NAMES = tuple(row.name for group in GROUPS for row in group.rows)
LEARNED_BOUNDS = (0.5, 3.0)  # of the factor by which estimates are corrected


def groups_with(names: Collection[str]) -> list[Group]:
    """Groups with these rows, and the rows that make the models for them."""
    selected = set(names)
    shapes = {group.shape for group in GROUPS if group.kind != "card" and group.only(selected).rows}
    selected |= {"models"} if shapes else set()
    selected |= {"models-8B"} if "8B" in shapes else set()
    return [part for group in GROUPS if (part := group.only(selected)).rows]


class Estimates:
    """Seconds that rows will take: those of the plan, corrected by what rows of the same kind took in this run."""

    def __init__(self) -> None:
        self.factors: dict[str, float] = {}

    def of(self, row: Row) -> float:
        return row.seconds * self.factors.get(kind_of(row.name), 1.0)

    def learn(self, row: Row, seconds: float) -> None:
        low, high = LEARNED_BOUNDS
        self.factors[kind_of(row.name)] = min(high, max(low, seconds / row.seconds))


def row_of(name: str, groups: Iterable[Group] = GROUPS) -> Row:
    return next(row for group in groups for row in group.rows if row.name == name)


def kind_of(name: str) -> str:
    """Rows of one kind are slow together, such as starts with a cache, or measurements of a loaded engine."""
    if name.startswith("start-") and name != "start-cold":
        return "start"
    return "engine" if name.startswith("engine-") else name


def unfinished_rows(groups: list[Group], finished: Collection[str]) -> Iterator[Row]:
    for group in groups:
        yield from (row for row in group.rows if row.name not in finished)
