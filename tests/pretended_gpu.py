"""A GPU that is pretended: tensors say that they are on `cuda:0` and hold their numbers in ordinary memory.

Code for GPUs runs on a machine without one, with its real numbers: results must equal those of the CPU.
Four kinds of faults show:

- tensors of two devices in one operation: the error that CUDA raises;
- a device that is compared or looked up in another spelling (`cuda` is not `cuda:0`);
- a copy to pinned memory that is read before an event after it was waited for: its memory holds nonsense until then;
- steps that make the program wait for the GPU.

It computes nothing as CUDA would, and has no kernels of its own: rounding, speed and memory are not pretended. Gradients that
autograd is to find need the real thing. Source: tensor subclasses of torch that wrap another tensor, as its FakeTensor does.
"""

import contextlib
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

GPU = torch.device("cuda", 0)
COPIES = {"copy_", "_to_copy"}
WHERE = ("/linrep/", "/transformers/models/")
"""What a wait is ascribed to."""
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}
"""Operations that take tensors of both devices: copies; and indices, which are copied, and waited for."""


class OnGpu(Tensor):
    """A tensor on the pretended GPU. To torch's own code it lies on the CPU, to whoever asks in Python on the GPU.

    Attributes:
        host: Its numbers.
    """

    host: Tensor
    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: Tensor) -> "OnGpu":
        """Around some numbers."""
        shape = {"strides": host.stride(), "storage_offset": host.storage_offset()}
        with torch.inference_mode(False):  # else views of what was there before cannot be made
            made = torch.Tensor._make_wrapper_subclass(cls, host.size(), dtype=host.dtype, device="cpu", **shape)  # pyright: ignore[reportAttributeAccessIssue]
        made.host = host
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Outside of the pretence nothing can be done with it."""
        raise RuntimeError(f"{func} on a pretended GPU's tensor after the pretence ended")

    def to(self, *args: Any, **kwargs: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A copy elsewhere, or in another number format."""
        if args and isinstance(args[0], Tensor):
            args, kwargs = args[1:], {**kwargs, "device": args[0].device, "dtype": args[0].dtype}
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        if device is not None and device.type == "cpu":
            found = torch.ops.aten._to_copy(self, device=device, non_blocking=non_blocking)
            return found if dtype is None else found.to(dtype)
        return self if dtype is None else Tensor.to(self, dtype)

    def cpu(self, *args: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A copy in ordinary memory."""
        return self.to("cpu")

    def tolist(self) -> Any:
        """Its numbers: a copy first."""
        return self.cpu().tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """No array has a GPU's memory."""
        raise TypeError("can't convert cuda:0 device type tensor to numpy: use Tensor.cpu() first")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        """Nor has this one."""
        return self.numpy()

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        """For messages of failed tests."""
        return f"OnGpu({self.host!r})"


def _host(value: Any) -> Any:
    return value.host if isinstance(value, OnGpu) else value


class Gpu(TorchDispatchMode):
    """Runs every operation, on either device.

    Attributes:
        waits: How often the program waited for a number, or for a copy of memory that is not pinned.
        ended: Copies to pinned memory that have come to their end.
        strict: Whether to wait is an error.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self._pinned = WeakIdKeyDictionary()
        self._under_way: deque[Callable[[], Any]] = deque()
        self.ended = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """One operation."""
        kwargs, name = dict(kwargs or {}), func.overloadpacket.__name__
        if name in ("is_pinned", "pin_memory", "_pin_memory"):
            return self._pin(name, args[0])
        if torch.is_inference_mode_enabled() and func._can_decompose():  # there composed operations come whole
            with self:
                return func.decompose(*args, **kwargs)
        pinned = kwargs.pop("pin_memory", None)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_gpu = any(isinstance(tensor, OnGpu) for tensor in tensors)
        # A number on the CPU may go with tensors of a GPU, as in CUDA.
        beside = any(tensor.dim() > 0 for tensor in tensors if not isinstance(tensor, OnGpu))
        if on_gpu and beside and name in INDEXED:
            self.wait(func)
        elif on_gpu and beside and name not in COPIES:
            raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu: {func}")
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "unique2", "_unique2") and on_gpu:
            self.wait(func)
        if name == "copy_" and isinstance(args[1], OnGpu) and not isinstance(args[0], OnGpu):
            return self._to_host(*args, **kwargs)
        wanted = kwargs.get("device")
        if wanted is not None:
            kwargs["device"] = torch.device("cpu")
            if name == "_to_copy" and on_gpu and wanted.type == "cpu":
                self.wait(func)
            if (
                name == "_to_copy"
                and wanted.type == "cuda"
                and not on_gpu
                and not (args[0] in self._pinned and kwargs.get("non_blocking"))
            ):
                self.wait(func)
        there = on_gpu if wanted is None else wanted.type == "cuda"
        if name == "copy_":
            there = isinstance(args[0], OnGpu)
        hosts, of_hosts = tree_map(_host, (args, kwargs))
        found = func(*hosts, **of_hosts)
        same = {id(_host(tensor)): tensor for tensor in tensors}  # what is changed in place stays the same tensor
        made = tree_map(lambda x: same.get(id(x), OnGpu(x)) if isinstance(x, Tensor) else x, found) if there else found
        if pinned:
            self._pinned[made] = True
        return made

    def _pin(self, name: str, tensor: Tensor) -> Any:
        if name == "is_pinned":
            return tensor in self._pinned
        assert not isinstance(tensor, OnGpu), "only ordinary memory can be pinned"
        pinned = tensor.clone()
        self._pinned[pinned] = True
        return pinned

    def _to_host(self, to: Tensor, source: OnGpu, non_blocking: bool = False) -> Tensor:
        now = source.host.clone()
        if non_blocking and to in self._pinned:
            to.fill_(float("nan") if to.is_floating_point() else 1)
            self._under_way.append(lambda: to.copy_(now))
            return to
        self.wait("copy_")
        return to.copy_(now)

    def wait(self, what: Any) -> None:
        """The program stands still until the GPU is idle."""
        self.settle()
        frames = [frame for frame in traceback.extract_stack() if any(name in frame.filename for name in WHERE)]
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        self.waits.append(f"{what} at {where}")

    def settle(self, until: int | None = None) -> None:
        """End the copies that were begun before the one of a number; all without one."""
        with torch.inference_mode():  # in which the memory that they go to may have been made
            while self._under_way and (until is None or self.ended < until):
                self._under_way.popleft()()
                self.ended += 1

    @property
    def begun(self) -> int:
        """Copies so far."""
        return self.ended + len(self._under_way)


GPUS: list[Gpu] = []
"""Those that are pretended now."""


def _placed(to: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Of `cuda` without a number torch's own code would ask CUDA for the present one, and of a tensor it knows no GPU."""

    def moved(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        like = kwargs.pop("other", args[0] if args else None)
        if isinstance(like, Tensor):
            args, kwargs = args[1:], {**kwargs, "device": like.device, "dtype": like.dtype}
        elif isinstance(like, str | torch.device) and str(like) == "cuda":
            args, kwargs = args[1:], {**kwargs, "device": GPU}
        return to(tensor, *args, **kwargs)

    return moved


class Event(torch.cuda.Event):
    """An event after everything that the GPU was asked for when it was recorded. Nothing takes time."""

    def __new__(cls, **kwargs: Any) -> "Event":
        """Without CUDA's own, which is not there."""
        return object.__new__(cls)

    def __init__(self, **kwargs: Any) -> None:
        self._until = 0

    def record(self, stream: Any = None) -> None:
        """After what was asked for until now."""
        self._until = GPUS[-1].begun

    def synchronize(self) -> None:
        """Copies up to here are there."""
        GPUS[-1].settle(self._until)

    def query(self) -> bool:
        """Whether they are."""
        return GPUS[-1].ended >= self._until

    def elapsed_time(self, end_event: "Event") -> float:
        """Milliseconds."""
        return 0.0


def _recorded() -> Event:
    event = Event()
    event.record()
    return event


@contextlib.contextmanager
def pretended_gpu() -> Iterator[Gpu]:
    """One GPU, `cuda:0`, for the length of the block."""
    gpu = Gpu()
    stream = SimpleNamespace(record_event=_recorded, synchronize=gpu.settle)
    with pytest.MonkeyPatch.context() as patch:
        # A module that is moved gets other parameters: those that it has cannot become tensors of another class.
        patch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)
        patch.setattr(Tensor, "to", _placed(Tensor.to))
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.cuda, "Event", Event)
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        patch.setattr(torch.cuda, "current_device", lambda: 0)
        patch.setattr(torch.cuda, "current_stream", lambda device=None: stream)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        patch.setattr(torch.cuda, "synchronize", lambda device=None: gpu.settle())
        patch.setattr(torch.cuda, "empty_cache", lambda: None)
        patch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=1 << 30))
        lifts = torch._C._only_lift_cpu_tensors()  # pyright: ignore[reportAttributeAccessIssue]
        torch._C._set_only_lift_cpu_tensors(True)  # pyright: ignore[reportAttributeAccessIssue]  torch.tensor() is a copy that is seen
        try:
            GPUS.append(gpu)
            with gpu:
                yield gpu
        finally:
            GPUS.pop()
            torch._C._set_only_lift_cpu_tensors(lifts)  # pyright: ignore[reportAttributeAccessIssue]
