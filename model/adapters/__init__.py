"""Small trainable modules around the linear layers of a frozen model."""

from model.adapters.apply import apply_adapters, base_tensors, merge_adapters
from model.adapters.base import Adapter
from model.adapters.lora_drop import LoRADropAdapter
from model.adapters.orthogonal import OrthogonalAdapter

__all__ = [
    "Adapter",
    "LoRADropAdapter",
    "OrthogonalAdapter",
    "apply_adapters",
    "base_tensors",
    "merge_adapters",
]
