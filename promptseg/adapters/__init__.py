"""Adapters: LoRA weights and small heads that teach a backbone an organ.

What is here runs at inference and never imports `promptseg.finetune`.
"""

from promptseg.adapters.files import (
    Adapter,
    adapter_digest,
    find_adapter,
    list_adapters,
    read_adapter,
    write_adapter,
)
from promptseg.adapters.info import AdapterInfo
from promptseg.adapters.merging import save_merged
from promptseg.adapters.sam_lora import read_sam_lora
from promptseg.adapters.stack import AdapterStack, base_digest

__all__ = [
    "Adapter",
    "AdapterInfo",
    "AdapterStack",
    "adapter_digest",
    "base_digest",
    "find_adapter",
    "list_adapters",
    "read_adapter",
    "read_sam_lora",
    "save_merged",
    "write_adapter",
]
