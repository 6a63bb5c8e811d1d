"""How many bytes tensors take at most: counted on the meta device, where nothing is computed."""

import weakref
from collections.abc import Iterable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scal3r_ros.networks.scal3r.architecture import Architecture
from scal3r_ros.networks.scal3r.network import Scal3R


class TensorPeak(TorchDispatchMode):
    """While entered, counts the storages that operations on the meta device make and free; those
    of `before` do not count."""

    def __init__(self, before: Iterable[torch.Tensor] = ()):
        super().__init__()
        self.present = self.highest = 0
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in before}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation is torch.ops.aten._local_scalar_dense.default:
            return True  # the only question that is asked of values: whether all are finite
        results = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(results):
            if isinstance(tensor, torch.Tensor) and tensor.is_meta:
                self._note(tensor.untyped_storage())
        return results

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.present += self._sizes[key]
            self.highest = max(self.highest, self.present)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.present -= self._sizes.pop(key)


class FusedAttention(TorchFunctionMode):
    """Attention as the kernels of GPUs do it: no matrix of all scores, only what comes out."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return function(*args, **(kwargs or {}))


class MetaNetwork(Scal3R):
    """A network without numbers; the meta device knows no autocast, so all is float32."""

    def __init__(self, architecture: Architecture):
        with torch.device("meta"):
            super().__init__(architecture)
        self.eval().requires_grad_(False)

    def block_precision(self):
        return nullcontext()

    full_precision = block_precision
