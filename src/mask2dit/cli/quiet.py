"""Libraries keep their log lines and bars to themselves while a command runs."""


def quieten_libraries() -> None:
    """Call after the first import of diffusers; imports transformers."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
