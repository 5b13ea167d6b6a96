"""A device that is none: it computes on the CPU, keeps CUDA's rules, and notes every call on which CUDA would wait.

A machine without a GPU can so show two kinds of faults: tensors of two devices in one operation, and calls that make
the processor wait until the device has done all that it was asked for. What is slow on a GPU it cannot show.

    with pretended_device() as waits:
        x = torch.ones(3, device="gpu")     # or .to("gpu")
        x + torch.ones(3)                   # RuntimeError, as with CUDA
        x.sum().item()
    waits                                   # [Wait(operation="item", module="...", ...)]

The device is called "gpu:0" and its tensors say `is_cuda`. It is PyTorch's place for devices of others, PrivateUse1,
filled in Python: a tensor is a wrapper around one on the CPU, and a mode of dispatch sees what has no such tensor among
its arguments, such as ``torch.ones(3, device="gpu")``.

Trials run on it by ``+trainer.strategy._target_=tests.pretended_device.strategy``.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from pytorch_lightning.accelerators import Accelerator
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

aten = torch.ops.aten


class _Backend(_DummyBackendModule):
    """``torch.gpu``. Its random numbers are those of the CPU."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def get_rng_state(self, device: Any) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any) -> None:
        torch.set_rng_state(state)

    def synchronize(self, device: Any = None) -> None:
        _wait("synchronize")


_setup_privateuseone_for_python_backend("gpu", _Backend())
DEVICE = torch.device("gpu:0")
WAITS: list["Wait"] = []  # since the device was last entered
_pinned = "_pinned"  # attribute of tensors on the CPU that copies to the device need not wait for

# Calls that need to know a value or a size that the device computes.
DATA_DEPENDENT = {
    aten._local_scalar_dense: "item",
    aten.equal: "equal",
    aten.nonzero: "nonzero",
    aten.masked_select: "masked_select",
    aten._unique2: "unique",
    aten.unique_dim: "unique",
    aten.unique_consecutive: "unique",
    aten.bincount: "bincount",
    aten._linalg_eigh: "eigh",  # looks whether it has converged
    torch.ops.torchvision.nms: "nms",
}
# Beside pointwise ones, those that take a 0-dim tensor of the CPU as a number.
TAKES_NUMBERS = {aten.index_put, aten.index_put_, aten._index_put_impl_, aten.fill, aten.fill_, aten.masked_fill_}


class PretendedTensor(torch.Tensor):
    """A tensor of the device, around `inner` on the CPU."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "PretendedTensor":
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=DEVICE,
        )  # fmt: skip

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.ndim == 0 else super().__format__(spec)

    def __repr__(self) -> str:  # type: ignore[override]
        return f"PretendedTensor({tuple(self.shape)}, {self.dtype})"

    def __reduce_ex__(self, protocol: Any) -> Any:  # checkpoints hold plain tensors
        return self.detach().to("cpu").__reduce_ex__(protocol)

    def tolist(self) -> Any:  # torch refuses it for subclasses
        _wait("tolist")
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@dataclass(frozen=True)
class Wait:
    """A call on which CUDA waits: what is called, and by which module's function and line (not torch's own)."""

    operation: str
    module: str
    function: str
    line: int
    stack: tuple[str, ...]  # "module.function" of all frames, from the innermost

    def __str__(self) -> str:
        return f"{self.operation} in {self.module}.{self.function}, line {self.line}"


@contextmanager
def pretended_device() -> Iterator[list[Wait]]:
    """Meanwhile, "gpu" is a device; yields the list of what CUDA would have waited on so far, in order."""
    WAITS.clear()
    with _Mode():
        yield WAITS


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:  # inference mode has not taken it apart
                return func.decompose(*args, **(kwargs or {}))
        return _run(func, args, kwargs or {})


def _wait(operation: str) -> None:
    frames = list(_frames())
    own = next((f for f in frames if f[0].partition(".")[0] not in ("torch", "contextlib")), frames[0])
    WAITS.append(Wait(operation, *own, tuple(f"{module}.{function}" for module, function, _ in frames)))


def _frames() -> Iterator[tuple[str, str, int]]:
    frame = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module != __name__:
            yield module, frame.f_code.co_name, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    packet, leaves = func.overloadpacket, tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    ours = [tensor for tensor in tensors if isinstance(tensor, PretendedTensor)]
    others = [tensor for tensor in tensors if not isinstance(tensor, PretendedTensor)]
    asked = next((leaf for leaf in leaves if isinstance(leaf, torch.device)), None)
    if packet is aten._pin_memory:
        setattr(pinned := args[0].clone(), _pinned, True)
        return pinned
    if packet is aten.is_pinned:
        return hasattr(args[0], _pinned)
    if not ours and (asked is None or asked.type != DEVICE.type):
        return func(*args, **kwargs)
    if any(isinstance(leaf, torch.Generator) and leaf.device.type == "cpu" for leaf in leaves):
        raise RuntimeError("Expected a 'gpu' device type for generator but found 'cpu'")

    leaves_it = False  # the result is no tensor of the device
    if packet in (aten._to_copy, aten.copy_):
        if packet is aten.copy_:
            source, leaves_it = args[1], not isinstance(args[0], PretendedTensor)
        else:
            source, leaves_it = args[0], asked is not None and asked.type != DEVICE.type
        meanwhile = args[2] if len(args) > 2 else kwargs.get("non_blocking")
        if not isinstance(source, PretendedTensor):
            if not (meanwhile and hasattr(source, _pinned)):
                _wait("copy to the device")
        elif leaves_it and not meanwhile and (asked is None or asked.type != "meta"):
            _wait("copy from the device")
    else:
        _check_mix(func, packet, args, others)
        if operation := _data_dependent(packet, args, kwargs):
            _wait(operation)

    plain_args, plain = tree_map(_plain, (args, kwargs))
    result = func(*plain_args, **plain)
    if leaves_it:
        return args[0] if packet is aten.copy_ else result
    view = any(
        returned.alias_info is not None and not returned.alias_info.is_write for returned in func._schema.returns
    )
    # Of a tensor that is none of inference mode, neither are the views.
    with torch.inference_mode(ours[0].is_inference() if view else torch.is_inference_mode_enabled()):
        result = tree_map_only(torch.Tensor, PretendedTensor, result)
    return return_and_correct_aliasing(func, args, kwargs, result)


# ``torch.tensor(..., device="gpu")`` works below all modes, and asks the device's own kernels.
_library = torch.library.Library("aten", "IMPL")
for _kernel in (aten.empty.memory_format, aten.empty_strided.default, aten.copy_.default):
    _library.impl(_kernel, partial(lambda func, *args, **kwargs: _run(func, args, kwargs), _kernel), "PrivateUse1")


def _plain(leaf: Any) -> Any:
    if isinstance(leaf, PretendedTensor):
        return leaf.inner
    return torch.device("cpu") if isinstance(leaf, torch.device) and leaf.type == DEVICE.type else leaf


def _check_mix(func: Any, packet: Any, args: tuple[Any, ...], others: list[torch.Tensor]) -> None:
    """Refuse what CUDA refuses: tensors of two devices, but for numbers and for indices on the CPU."""
    indexes = packet in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)
    if indexes and isinstance(args[0], PretendedTensor):
        on_cpu = [index for index in args[1] if index is not None and not isinstance(index, PretendedTensor)]
        if on_cpu:
            _wait("index on the CPU")
        others = [other for other in others if not any(other is index for index in on_cpu)]
    numbers = torch.Tag.pointwise in func.tags or packet in TAKES_NUMBERS
    if wrong := [other for other in others if other.ndim > 0 or not numbers]:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {func} got gpu:0 and cpu {tuple(wrong[0].shape)}"
        )


def _data_dependent(packet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    if packet in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
        masks = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
        fills = packet is not aten.index and args[2].numel() == 1  # which CUDA does by masked_fill
        return "boolean mask as index" if masks and not fills else None
    if packet is aten.repeat_interleave and kwargs.get("output_size") is None:
        return "repeat_interleave"
    return DATA_DEPENDENT.get(packet)


class PretendedAccelerator(Accelerator):
    """The device for Lightning."""

    def setup_device(self, device: torch.device) -> None: ...

    def teardown(self) -> None: ...

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        return [0]

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [DEVICE]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return "gpu"


def strategy() -> SingleDeviceStrategy:
    """What ``trainer.strategy`` must be for a trial on the device."""
    return SingleDeviceStrategy(DEVICE, PretendedAccelerator())
