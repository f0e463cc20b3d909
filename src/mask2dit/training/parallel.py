"""One device or several: which samples are this device's, how gradients meet, and how sharded weights become whole again.

Launching, devices, DDP and DeepSpeed's ZeRO are Accelerate's; FSDP2 is torch's own `fully_shard`, because Accelerate turns it silently
into DDP on the CPU.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from mask2dit.errors import InputError
from mask2dit.training.config import DiffusionRecipe


def own_numbers(recipe: DiffusionRecipe, step: int, rank: int, num_devices: int) -> range:
    """The numbers of this device's samples of one optimiser step."""
    share = recipe.batch_size // num_devices
    first = step * recipe.batch_size + rank * share
    return range(first, first + share)


def check_batch(recipe: DiffusionRecipe, num_devices: int) -> None:
    """Raise InputError unless the batch can be dealt out to the devices evenly."""
    if recipe.batch_size % num_devices:
        raise InputError(f"batch_size: got {recipe.batch_size} for {num_devices} devices, expected a multiple of {num_devices}")


def distribute(accelerator: Accelerator, recipe: DiffusionRecipe, modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Place the trained modules for forward passes: alone, under DDP, or sharded in place (then their parameters are DTensors)."""
    if accelerator.num_processes == 1 or recipe.sharding == "none":
        return {name: accelerator.prepare_model(module) for name, module in modules.items()}
    warnings.filterwarnings("ignore", message=".*returned a view tensor")  # which nobody changes in place
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    policy = MixedPrecisionPolicy()
    if recipe.precision == "bfloat16" and recipe.lora is None:
        # Inputs are not cast: the rotary table stays float32, and the rest comes in the right dtype already.
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for module in modules.values():
        module.to(accelerator.device)
        for block in getattr(module, "transformer_blocks", ()):
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(module, mesh=mesh, mp_policy=policy)
    return dict(modules)


def uses_zero(accelerator: Accelerator) -> bool:
    """Whether Accelerate was launched with a DeepSpeed configuration; then DeepSpeed's engine clips, steps and saves."""
    return bool(accelerator.distributed_type == DistributedType.DEEPSPEED)


def distribute_zero(
    accelerator: Accelerator, recipe: DiffusionRecipe, transformer: nn.Module, optimizer: torch.optim.Optimizer, needs_text: bool
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Hand the transformer and its optimiser to DeepSpeed, with the batch and the clipping of the recipe.

    needs_text: whether captions are encoded while it trains.
    """
    for name, wanted in (("ema_decay", None), ("train_text_encoder", False), ("sharding", "none")):
        if getattr(recipe, name) != wanted:
            raise InputError(f"{name}: got {getattr(recipe, name)} under DeepSpeed, expected {str(wanted).lower()}; change the recipe")
    if accelerator.state.deepspeed_plugin.zero_stage == 3 and recipe.validation is not None:
        raise InputError("validation: cannot film with weights that ZeRO-3 has cut up; set it to null, or use stage 2 or sharding: fsdp")
    share = recipe.batch_size // accelerator.num_processes
    micro = recipe.micro_batch_size or share
    if share % micro:
        raise InputError(f"micro_batch_size: got {micro} for {share} samples a device, expected a divisor under DeepSpeed; change it")
    if accelerator.state.deepspeed_plugin.zero_stage == 3 and needs_text:
        raise InputError("latent_cache: got none with captions under ZeRO-3, which would cut up the text encoder; fill a cache first")
    settings = accelerator.state.deepspeed_plugin.deepspeed_config
    settings |= {"train_micro_batch_size_per_gpu": micro, "gradient_accumulation_steps": share // micro}
    settings |= {"gradient_clipping": recipe.max_grad_norm, "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False}
    engine, stepped = accelerator.prepare(transformer, optimizer)
    return engine, stepped


@contextmanager
def gradients_meet(accelerator: Accelerator, modules: Sequence[nn.Module], now: bool) -> Iterator[None]:
    """Within a micro batch: let the devices exchange gradients `now`, or go on adding up their own.

    Sharded ones always exchange: whole gradients of their own would be as large as what sharding saves.
    """
    accelerator.gradient_state._set_sync_gradients(now)  # by which DeepSpeed's engine knows when to step
    with ExitStack() as stack:
        for module in modules:
            if not now and not isinstance(module, FSDPModule) and not uses_zero(accelerator):
                stack.enter_context(accelerator.no_sync(module))
        yield


def clip_gradients(parameters: Sequence[Tensor], max_norm: float) -> float:
    """Scale all gradients so that their common norm is at most `max_norm`; the norm before."""
    norm: Any = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def reshard(module: nn.Module) -> None:
    """Let go of the weights that a forward pass without a backward pass has left gathered."""
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def whole_state(module: nn.Module, keep: bool) -> dict[str, Tensor]:
    """The state dict with whole tensors on the CPU where `keep`, else empty. Every device must call it: shards are gathered."""
    state: dict[str, Tensor] = {}
    for key, value in module.state_dict().items():
        plain = value.detach()
        whole = plain.full_tensor() if isinstance(plain, DTensor) else plain
        if keep:
            state[key] = whole.to("cpu", copy=True)  # the weights themselves may change before this is written
    return state
