"""Start a notebook: seeds, threads, style, and a printed record of the environment.

`start` relies on nothing but its arguments: a notebook opened in JupyterLab, run by papermill from any folder or run by
the project's runner behaves the same.
"""

from __future__ import annotations

import os
import platform
import random
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from mobivid_core.errors import MobiVidError, ParameterError
from mobivid_core.memory import keep_memory_low
from mobivid_core.paths import notebooks_dir
from mobivid_core.profiles import Profile, get_profile
from mobivid_core.show.results import Results
from mobivid_core.show.style import use_style

_MAX_SEED = 2**32 - 1  # numpy's limit


@dataclass(frozen=True)
class Context:
    """What a notebook works with."""

    profile: Profile  # sizes and budgets
    device: str  # torch device, "cpu" or "cuda"
    threads: int  # that torch uses; results are bit-identical at a fixed number
    results: Results  # registers tables, figures and headline numbers


def thread_count() -> int:
    """`$MOBIVID_THREADS` if set, else the processors this process may use; a bad value is a `ParameterError`."""
    asked = os.environ.get("MOBIVID_THREADS")
    if asked is None:
        usable = getattr(os, "sched_getaffinity", None)
        return len(usable(0)) if usable else os.cpu_count() or 1
    if not asked.isdigit() or int(asked) < 1:
        raise ParameterError(f"MOBIVID_THREADS is {asked!r}; it must be a whole number above zero")
    return int(asked)


def start(name: str, profile: str, seed: int) -> Context:
    """Check the parameters, set seeds, threads and style, and print what runs here; `name` is the file's stem.

    A wrong type or range is a `ParameterError`, an unknown profile a `ProfileError`, a missing GPU a `MobiVidError`.
    """
    if not isinstance(profile, str):
        raise ParameterError(f"PROFILE must be text such as 'laptop', got {profile!r} ({type(profile).__name__})")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= _MAX_SEED:
        raise ParameterError(f"SEED must be a whole number from 0 to {_MAX_SEED}, got {seed!r} ({type(seed).__name__})")
    sizes = get_profile(profile)
    # Before transformers is imported anywhere: every weight is local, nothing is fetched.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    import torch

    if sizes.device == "cuda" and not torch.cuda.is_available():
        raise MobiVidError(
            f"profile {sizes.name!r} trains on a GPU and torch sees none here. Use the profile 'scratch' to train "
            "on the processor, or 'laptop' to start from the shipped checkpoints."
        )
    threads = thread_count()
    torch.set_num_threads(threads)
    random.seed(seed)
    np.random.seed(seed)  # sklearn and scipy draw from it where they are given no generator
    torch.manual_seed(seed)
    use_style()
    keep_memory_low()
    libraries = "  ".join(f"{package} {version(package)}" for package in ("torch", "diffusers", "numpy"))
    print(f"{name}  profile {sizes.name}  seed {seed}  device {sizes.device}  threads {threads}")
    print(f"python {platform.python_version()}  {libraries}  {platform.system()} {platform.machine()}")
    if not sizes.meaningful:
        print(f"profile {sizes.name!r} only proves that the code runs: its numbers are meaningless")
    if not (notebooks_dir() / f"{name}.ipynb").is_file():
        print(f"note: there is no notebooks/{name}.ipynb; results are registered under that name all the same")
    return Context(sizes, sizes.device, threads, Results(notebook=name, profile=sizes.name))
