"""vLLM's fused RMSNorm on CPU hosts. It ships the kernels for them too, but registers them for GPUs alone and runs
a CPU model's norms as some ten operations of PyTorch, each of which reads and writes all activations."""

PROVIDER = "bulkembed_cpu"


def fuse_norms() -> None:
    """For the models that are loaded in this process. An engine in a process of its own keeps vLLM's way."""
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
