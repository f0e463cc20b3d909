"""The only private names of diffusers that we use; each has a test that says what breaks without it."""

import torch
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry


def register_cached_block(block: type[torch.nn.Module]) -> None:
    """Let diffusers' step caches (first-block cache) wrap a block that returns the joint sequence."""
    metadata = TransformerBlockMetadata(return_hidden_states_index=0, return_encoder_hidden_states_index=None)
    TransformerBlockRegistry.register(model_class=block, metadata=metadata)
