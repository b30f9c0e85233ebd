"""Patches that make vLLM's models faster and smaller on CPU hosts. No patch applies on a GPU.

| patch | gain on two cores | goes when vLLM |
|---|---|---|
| `use_fused_norms` | Qwen3: 1.05x to 1.15x speed | registers its compiled norms for CPUs too |
| `patch_layers`, tiles | Qwen3: 1.08x to 1.13x speed; MiniLM: 16 % less memory | runs feed-forward networks in tiles |
| `patch_layers`, `LastLayer` | Qwen3: 1.16x to 1.21x with four layers, 1.02x with 28 | computes only pooled tokens there |
| `limit_kept_gemms` | MiniLM: 17 % less memory | keeps few prepared GEMMs |

docs/decisions/engine-speed.md and engine-memory.md have the measurements.
The tests compare the patched results with references."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PROVIDER = "bulkembed_cpu"  # the name of our norms in vLLM's registry
TILE_TOKENS = 1024  # the activations of so many tokens stay in the processor's caches
BERT_TILE_TOKENS = 4096  # 1,024 would save 38 MB more, and is 1.07 times slower
MAX_KEPT_GEMMS = 4  # of each weight: those of a tile and of the rest of a step, for two steps


def use_fused_norms() -> None:
    """Lets the models of this process use vLLM's compiled RMSNorm kernels. Call it after each load.

    vLLM compiles the kernels for CPUs too, but registers them for GPUs only. A CPU model's norm is about ten
    operations of PyTorch, and each one reads and writes all activations."""
    from vllm import ir

    if PROVIDER not in ir.ops.rms_norm.impls:
        register_norms()
    for operation in (ir.ops.rms_norm, ir.ops.fused_add_rms_norm):
        operation.set_default([PROVIDER, "native"])  # loading a model sets vLLM's own order


def register_norms() -> None:
    import torch
    from vllm import ir
    from vllm.platforms import current_platform

    current_platform.import_kernels()
    compiled = torch.ops._C

    # The names and types of all parameters are vLLM's: it compares each signature with its own.
    def same_dtype(x: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None) -> bool:
        return variance_size is None and (weight is None or weight.dtype == x.dtype)

    def same_dtype_and_contiguous(
        x: torch.Tensor, x_residual: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None
    ) -> bool:
        return same_dtype(x, weight, epsilon, variance_size) and x.is_contiguous() and x_residual.is_contiguous()

    def rms_norm(x: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None) -> torch.Tensor:
        normed = torch.empty(x.shape, dtype=x.dtype)
        compiled.rms_norm(normed, x.contiguous(), weight, epsilon)  # attention passes its queries and keys as slices of one matrix
        return normed

    def fused_add_rms_norm(
        x: torch.Tensor, x_residual: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        compiled.fused_add_rms_norm(x, x_residual, weight, epsilon)
        return x, x_residual

    supported = hasattr(compiled, "rms_norm") and hasattr(compiled, "fused_add_rms_norm")
    ir.ops.rms_norm.register_impl(PROVIDER, supports_args=same_dtype, supported=supported)(rms_norm)
    ir.ops.fused_add_rms_norm.register_impl(PROVIDER, supports_args=same_dtype_and_contiguous, supported=supported, inplace=True)(
        fused_add_rms_norm
    )


def limit_kept_gemms() -> None:
    """Lets each weight of the models that are loaded next keep the last 4 prepared GEMMs instead of the last 32.

    oneDNN prepares a GEMM for each number of rows, and a number seldom repeats. A prepared GEMM is allocated between the
    activations of one step and freed 32 steps later. Both together fragment glibc's heap."""
    from vllm import _custom_ops

    create = inspect.unwrap(_custom_ops.create_onednn_mm)  # vLLM's own function, also where this patch is applied twice

    @wraps(create)
    def create_with_small_cache(weight: "torch.Tensor", primitive_cache_size: int = MAX_KEPT_GEMMS) -> Any:
        return create(weight, min(primitive_cache_size, MAX_KEPT_GEMMS))

    _custom_ops.create_onednn_mm = create_with_small_cache


def patch_layers(llm: Any) -> None:
    """Runs the layers of a loaded `vllm.LLM` in tiles, and its last layer for pooled tokens only.

    Compiled models, and engines with processes of their own, keep vLLM's layers."""
    import vllm

    config = llm.llm_engine.vllm_config
    if config.model_config.enforce_eager and config.parallel_config.world_size == 1 and not vllm.envs.VLLM_ENABLE_V1_MULTIPROCESSING:
        llm.collective_rpc(patch_worker_layers)


def patch_worker_layers(worker: Any) -> None:
    from vllm.model_executor.models.bert import BertLayer
    from vllm.model_executor.models.qwen2 import Qwen2MLP
    from vllm.model_executor.models.qwen3 import Qwen3Model

    runner = worker.model_runner
    for module in runner.model.modules():
        if isinstance(module, Qwen2MLP):  # Qwen3 uses it too
            module.forward = in_tiles(module.forward, TILE_TOKENS)
        elif isinstance(module, BertLayer):
            module.forward = tiled_bert_layer(module)
    decoder = getattr(runner.model, "model", None)
    if isinstance(decoder, Qwen3Model) and runner.model_config.pooler_config.seq_pooling_type == "LAST":
        LastLayer(decoder.layers[-1], runner)


def in_tiles(forward: Callable[["torch.Tensor"], "torch.Tensor"], tile: int) -> Callable[["torch.Tensor"], "torch.Tensor"]:
    """`forward` on `tile` rows at a time; it must compute every row independently.

    Between the GEMMs of a feed-forward network the activations are several times as wide as its input. Those of a whole
    step do not fit the processor's caches: they are written to memory and read again."""

    def tiled_forward(rows: "torch.Tensor") -> "torch.Tensor":
        import torch

        if len(rows) <= tile:
            return forward(rows)
        result = torch.empty_like(rows)
        for source, target in zip(rows.split(tile), result.split(tile), strict=True):
            target.copy_(forward(source))
        return result

    return tiled_forward


def tiled_bert_layer(layer: Any) -> Callable[["torch.Tensor"], "torch.Tensor"]:
    """`layer.forward` with its feed-forward network in tiles. It is a little slower, and takes 16 % less memory.

    The activations of a whole step between the two GEMMs are the main cause of fragmentation of glibc's heap."""
    feed_forward = in_tiles(lambda rows: layer.output(layer.intermediate(rows), rows), BERT_TILE_TOKENS)
    return lambda hidden_states: feed_forward(layer.attention(hidden_states))


class LastLayer:
    """Replaces the forward pass of a decoder's last layer: after attention it computes only the last token of each document.

    With last-token pooling only those tokens are pooled, and no later layer reads the others."""

    def __init__(self, layer: Any, runner: Any) -> None:
        self._layer, self._runner = layer, runner
        self._forward_all: Callable[..., tuple[torch.Tensor, torch.Tensor]] = layer.forward
        self._project_all = layer.self_attn.o_proj.forward
        self._last_rows: torch.Tensor | None = None  # in the step that runs; None: compute all rows
        layer.forward, layer.self_attn.o_proj.forward = self.forward, self.project

    def project(self, attended: "torch.Tensor") -> Any:
        """The output projection of attention, for the rows that are needed."""
        return self._project_all(attended if self._last_rows is None else attended[self._last_rows])

    def forward(
        self, positions: "torch.Tensor", hidden_states: "torch.Tensor", residual: "torch.Tensor | None"
    ) -> "tuple[torch.Tensor, torch.Tensor]":
        import torch

        rows = self._last_rows = None if residual is None else self.find_last_rows()
        if residual is None or rows is None:
            return self._forward_all(positions, hidden_states, residual)
        hidden_states, residual = self._layer.input_layernorm(hidden_states, residual)
        attended = self._layer.self_attn(positions=positions, hidden_states=hidden_states)
        last_states, residual[rows] = self._layer.post_attention_layernorm(attended, residual[rows])
        states = torch.zeros_like(residual)  # the pooler picks the last rows out of a full matrix
        states[rows] = self._layer.mlp(last_states)
        return states, residual

    def find_last_rows(self) -> "torch.Tensor | None":
        """Rows of the last token of each document in this step; None where a request needs the states of all tokens."""
        from vllm.forward_context import get_forward_context

        metadata = get_forward_context().attn_metadata
        if metadata is None or any(params.task != "embed" for params in self._runner.input_batch.get_pooling_params()):
            return None
        return metadata[self._layer.self_attn.attn.layer_name].query_start_loc[1:] - 1
