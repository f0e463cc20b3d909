"""Libraries keep their log lines and bars to themselves while a command runs."""

import logging

NOISY_IMPORTS = (
    "torchao",
    "torch.utils._pytree",
    "diffusers.quantizers.torchao.torchao_quantizer",
)  # they warn of optional parts of themselves as they are imported


def quieten_imports() -> None:
    """Call before the first import of torch."""
    for name in NOISY_IMPORTS:
        logging.getLogger(name).setLevel(logging.ERROR)


def quieten_libraries() -> None:
    """Call after the first import of diffusers; imports transformers."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
