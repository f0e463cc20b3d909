"""A vision captioner from settings: which endpoint or model, how patiently, and what it may cost. No torch until a local model is asked."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from mask2dit.chat import ChatClient, Endpoint
from mask2dit.chat_protocols import GEMINI, OPENAI
from mask2dit.curation.captioners.answers import AnswerCache, Limits
from mask2dit.curation.captioners.spending import LEDGER, Budget, Spending
from mask2dit.curation.captioners.vision import Asker, VisionCaptioner
from mask2dit.errors import InputError

Kind = Literal["openai", "gemini", "local"]
GEMINI_URL = "https://generativelanguage.googleapis.com"
ANSWERS = "answers"


@dataclass(frozen=True, slots=True)
class CaptionerSettings:
    """What a vision captioner needs to know.

    `model`: a name that the endpoint knows, or the folder of a local model. `base_url`: of an endpoint; Gemini's own where it is empty.
    `at_once`, `key`, `timeout_seconds` and `tries` are for endpoints, `device` and `max_new_tokens` for local models.
    """

    kind: Kind
    model: str
    base_url: str = ""
    key: str = field(default="", repr=False)
    timeout_seconds: float = 120.0
    tries: int = 4
    at_once: int = 4
    limits: Limits = field(default_factory=Limits)
    budget: Budget = field(default_factory=Budget)
    device: str = "cpu"
    max_new_tokens: int = 512

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"captioner: got {self.kind!r}, expected {', '.join(get_args(Kind))}; choose one of them")
        if self.at_once < 1:
            raise InputError(f"groups at once: got {self.at_once}, expected at least 1; give more")


def open_captioner(
    settings: CaptionerSettings,
    folder: Path,
    *,
    tell: Callable[[str], object] = lambda said: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> VisionCaptioner:
    """A captioner that keeps its answers and its ledger in `folder`; close it.

    `tell` hears why it waits. Nothing is asked yet. Raises InputError, ModelError, EndpointError.
    """
    cache = AnswerCache(folder / ANSWERS)
    if settings.kind == "local":
        from mask2dit.curation.captioners.local import LocalModel

        local = LocalModel(Path(settings.model), device=settings.device, max_new_tokens=settings.max_new_tokens)
        name = f"local {local.name}"
        spending = Spending(folder / LEDGER, name, settings.budget, clock=clock, sleep=sleep)
        local.meter = spending.request
        return VisionCaptioner(local, name, cache, spending, settings.limits)
    protocol = GEMINI if settings.kind == "gemini" else OPENAI
    base_url = settings.base_url or (GEMINI_URL if settings.kind == "gemini" else "")
    endpoint = Endpoint(base_url, settings.model, settings.key, settings.timeout_seconds, settings.tries, protocol)
    name = f"{settings.kind} {settings.model.strip()}"
    spending = Spending(folder / LEDGER, name, settings.budget, clock=clock, sleep=sleep)
    client: Asker = ChatClient(endpoint, clock=time.monotonic, sleep=sleep, tell=tell, meter=spending.request)
    return VisionCaptioner(client, name, cache, spending, settings.limits, settings.at_once)
