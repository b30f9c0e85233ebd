"""What makes vLLM's models faster and smaller on CPU hosts: the fused norms that it has and keeps for GPUs, products
that are kept for no longer than they are of use, feed-forward networks that stay within the processor's caches, and a
last layer that computes no more than is pooled."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PROVIDER = "bulkembed_cpu"
TILE = 1024  # tokens: what stays in the processor's caches
BERT_TILE = 4096
PRODUCTS = 4  # that a weight keeps: for the tiles and the rest of a step, twice


def use_fused_norms() -> None:
    """For the models that are loaded in this process: vLLM registers its compiled RMSNorm for GPUs alone, and runs a
    CPU model's norms as some ten operations of PyTorch, each of which reads and writes all activations."""
    from vllm import ir

    if PROVIDER not in ir.ops.rms_norm.impls:
        register()
    for operation in (ir.ops.rms_norm, ir.ops.fused_add_rms_norm):
        operation.set_default([PROVIDER, "native"])  # loading a model sets vLLM's own


def register() -> None:
    import torch
    from vllm import ir
    from vllm.platforms import current_platform

    current_platform.import_kernels()
    compiled = torch.ops._C

    # vLLM checks names and types of a signature against its own.
    def alike(x: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None) -> bool:
        return variance_size is None and (weight is None or weight.dtype == x.dtype)

    def alike_and_dense(
        x: torch.Tensor, x_residual: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None
    ) -> bool:
        return alike(x, weight, epsilon, variance_size) and x.is_contiguous() and x_residual.is_contiguous()

    def rms_norm(x: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None) -> torch.Tensor:
        normed = torch.empty(x.shape, dtype=x.dtype)
        compiled.rms_norm(normed, x.contiguous(), weight, epsilon)  # queries and keys come as slices of one matrix
        return normed

    def fused_add_rms_norm(
        x: torch.Tensor, x_residual: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        compiled.fused_add_rms_norm(x, x_residual, weight, epsilon)
        return x, x_residual

    supported = hasattr(compiled, "rms_norm") and hasattr(compiled, "fused_add_rms_norm")
    ir.ops.rms_norm.register_impl(PROVIDER, supports_args=alike, supported=supported)(rms_norm)
    ir.ops.fused_add_rms_norm.register_impl(PROVIDER, supports_args=alike_and_dense, supported=supported, inplace=True)(fused_add_rms_norm)


def limit_kept_gemms() -> None:
    """For the models that are loaded in this process from now on: each weight of vLLM's keeps oneDNN's products for the
    last 32 numbers of rows. Hardly a number of tokens comes again, and what is made amid the activations of one step and
    freed 32 steps later leaves holes in glibc's heap."""
    from vllm import _custom_ops

    create = inspect.unwrap(_custom_ops.create_onednn_mm)

    @wraps(create)
    def with_few(weight: "torch.Tensor", primitive_cache_size: int = PRODUCTS) -> Any:
        return create(weight, min(primitive_cache_size, PRODUCTS))

    _custom_ops.create_onednn_mm = with_few


def patch_layers(llm: Any) -> None:
    """`llm`: a `vllm.LLM`. A compiled model and an engine in processes of its own keep vLLM's layers."""
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
        if isinstance(module, Qwen2MLP):
            module.forward = in_tiles(module.forward, TILE)
        elif isinstance(module, BertLayer):
            module.forward = bert_layer(module)
    layers = getattr(runner.model, "model", None)
    if isinstance(layers, Qwen3Model) and runner.model_config.pooler_config.seq_pooling_type == "LAST":
        LastLayer(layers.layers[-1], runner)


def in_tiles(forward: Callable[["torch.Tensor"], "torch.Tensor"], tile: int) -> Callable[["torch.Tensor"], "torch.Tensor"]:
    """`forward` for `tile` rows at a time, where every row is computed by itself: what is between its products is
    several times as wide as its rows, and would be written to memory and read again."""

    def tiled(rows: "torch.Tensor") -> "torch.Tensor":
        import torch

        if len(rows) <= tile:
            return forward(rows)
        found = torch.empty_like(rows)
        for here, there in zip(rows.split(tile), found.split(tile), strict=True):
            there.copy_(forward(here))
        return found

    return tiled


def bert_layer(layer: Any) -> Callable[["torch.Tensor"], "torch.Tensor"]:
    """`layer.forward` with its feed-forward network in tiles. A little slower, with a seventh less memory: what a
    whole step has between the products leaves the largest holes in glibc's heap."""
    feed_forward = in_tiles(lambda rows: layer.output(layer.intermediate(rows), rows), BERT_TILE)
    return lambda hidden_states: feed_forward(layer.attention(hidden_states))


class LastLayer:
    """A decoder's last layer, for the last tokens alone behind its attention: they are what is pooled, and no layer
    comes after it that would look at the others."""

    def __init__(self, layer: Any, runner: Any) -> None:
        self._layer, self._runner = layer, runner
        self._whole: Callable[..., tuple[torch.Tensor, torch.Tensor]] = layer.forward
        self._project = layer.self_attn.o_proj.forward
        self._rows: torch.Tensor | None = None  # of the step that runs
        layer.forward, layer.self_attn.o_proj.forward = self.forward, self.project

    def project(self, attended: "torch.Tensor") -> Any:
        return self._project(attended if self._rows is None else attended[self._rows])

    def forward(
        self, positions: "torch.Tensor", hidden_states: "torch.Tensor", residual: "torch.Tensor | None"
    ) -> "tuple[torch.Tensor, torch.Tensor]":
        import torch

        self._rows = None if residual is None else self.pooled()
        if residual is None or self._rows is None:
            return self._whole(positions, hidden_states, residual)
        hidden_states, residual = self._layer.input_layernorm(hidden_states, residual)
        attended = self._layer.self_attn(positions=positions, hidden_states=hidden_states)
        last, residual[self._rows] = self._layer.post_attention_layernorm(attended, residual[self._rows])
        found = torch.zeros_like(residual)  # the pooler picks its rows out of all
        found[self._rows] = self._layer.mlp(last)
        return found, residual

    def pooled(self) -> "torch.Tensor | None":
        """Rows of the step's last tokens, None where it is asked for the others' states too."""
        from vllm.forward_context import get_forward_context

        metadata = get_forward_context().attn_metadata
        if metadata is None or any(params.task != "embed" for params in self._runner.input_batch.get_pooling_params()):
            return None
        return metadata[self._layer.self_attn.attn.layer_name].query_start_loc[1:] - 1
