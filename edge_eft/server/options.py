"""What `edge-eft serve` was asked for, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .served import ServedRecipe


@dataclass(frozen=True)
class ServeOptions:
    """Every option of the server.

    Attributes:
        recipes: of distinct names; clients that name no model get the first.
        host, port: where it listens; port 0: any that is free.
        api_keys: one of them is asked for; empty: none is. They are not shown.
        slots: requests that are decoded together, per model.
        queue: requests that may wait beyond them.
        keep_alive: seconds without a request after which a model is unloaded; 0: at once; None:
            never.
        origins: origins of web pages that may use the server; "*": all.
        hosts: names and addresses that are this server's, besides those that always are.
        n_ctx, threads, gpu_layers: as of `Emulator`.
        max_deaths: so many deaths of the engine in a minute, and it is not started again.
    """

    recipes: tuple[ServedRecipe, ...]
    host: str = "127.0.0.1"
    port: int = 8080
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    slots: int = 4
    queue: int = 64
    keep_alive: float | None = 300.0
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    n_ctx: int | None = None
    threads: int | None = None
    gpu_layers: int | None = None
    max_deaths: int = 3

    @property
    def load_options(self) -> dict[str, Any]:
        """The options of every `Emulator`."""
        return {
            "n_ctx": self.n_ctx,
            "n_threads": self.threads,
            "n_gpu_layers": self.gpu_layers,
            "n_slots": self.slots,
        }
