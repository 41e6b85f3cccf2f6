"""Atomic training state: one safetensors file of weights, averages and optimiser moments.

Sharded tensors are gathered when they are written, so that a state can be resumed on any number of processes.
"""

from __future__ import annotations

import csv
import hashlib
import json
import time
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mobivid_core.artifacts import save_model
from mobivid_core.errors import CheckpointError
from mobivid_core.files import replacing, write_bytes
from mobivid_core.train.distributed import like, processes, total, whole

STATE, LOG = "state.safetensors", "log.csv"


def folder_for(stage: Path, *data: Tensor) -> Path:
    """Folder below `stage` for training on just these data, so that other data never go on from its state.

    Of several processes, the first one's data count.
    """
    content = hashlib.sha256()
    for tensor in data:
        content.update(repr((tensor.shape, tensor.dtype)).encode())
        content.update(tensor.detach().cpu().contiguous().numpy())
    return stage / broadcast_object_list([content.hexdigest()[:16]])[0]


def write_log(file: Path, rows: list[dict[str, float]]) -> None:
    """Write a run's log as CSV in one atomic move."""
    with replacing(file) as part, part.open("w", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]) if rows else ["step"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def save_own(model: nn.Module, folder: Path, stage: Path) -> None:
    """Keep a model of the user's own data: the notebooks go on with the profile's."""
    for place in (folder, stage):
        save_model(model, place / "model")
    print(f"saved in {folder / 'model'}; the latest of all data is also in {stage / 'model'}")


def save_state(
    path: Path, step: int, modules: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer]
) -> None:
    """Write tensors and the step in one atomic move; of several processes, the first writes."""
    tensors = {f"module/{name}/{k}": v for name, module in modules.items() for k, v in module.state_dict().items()}
    for name, optimizer in optimizers.items():
        for index, slot in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{name}/{index}/{k}": torch.as_tensor(v) for k, v in slot.items()}
    full = {k: whole(v.detach()).contiguous() for k, v in tensors.items()}
    if processes().is_main_process:
        write_bytes(path, save(full, {"step": json.dumps(step)}))


def load_state(path: Path, modules: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer]) -> int:
    """Read a state back, or raise CheckpointError; returns the steps done, 0 without a state."""
    if not path.exists():
        return 0
    try:
        with safe_open(path, "pt") as stored:
            step = json.loads(stored.metadata()["step"])
            tensors = {k: stored.get_tensor(k) for k in stored.keys()}
        for name, module in modules.items():
            own = module.state_dict()
            stored_part = _below(tensors, f"module/{name}/")
            module.load_state_dict({k: like(v, own[k]) if k in own else v for k, v in stored_part.items()})
    except Exception as error:
        raise CheckpointError(
            f"the training state {path} cannot be read into this model ({error}); delete it to start this training "
            "again, or run with the sizes that made it"
        ) from error
    for name, optimizer in optimizers.items():
        slots: dict[int, dict[str, Tensor]] = {}
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for key, value in _below(tensors, f"optimizer/{name}/").items():
            index, slot = key.split("/")
            slots.setdefault(int(index), {})[slot] = like(value, parameters[int(index)])
        optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    return step


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


class Keeper:
    """State and log of one run, earlier parts included, in a folder; without a folder it keeps nothing."""

    def __init__(
        self,
        folder: Path | None,
        modules: dict[str, nn.Module],
        optimizers: dict[str, torch.optim.Optimizer],
        every_s: float,
    ) -> None:
        """Set up for these modules and optimisers; `every_s` seconds lie between saved states."""
        self.folder, self.log = folder, []
        self._modules, self._optimizers, self._every_s = modules, optimizers, every_s
        self._saved = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds that the log says have been spent."""
        return self.log[-1]["seconds"] if self.log else 0.0

    def load(self) -> int:
        """Go on from the folder's state; returns the steps done (errors as `load_state`)."""
        if not self.folder:
            return 0
        if processes().is_main_process:
            for part in self.folder.glob(".state-*.safetensors"):  # left by a killed run, never finished
                part.unlink(missing_ok=True)
        start = load_state(self.folder / STATE, self._modules, self._optimizers)
        self.log = _read_log(self.folder / LOG, start)
        return start

    def save_if_due(self, step: int) -> None:
        """Save if the last save is long enough ago; several processes follow the first one's clock."""
        if not self.folder:
            return
        late = processes().is_main_process and time.perf_counter() - self._saved > self._every_s
        if total({"late": float(late)})["late"]:
            self.save(step)

    def save(self, step: int) -> None:
        """Write state and log, each in one atomic move."""
        if not self.folder:
            return
        save_state(self.folder / STATE, step, self._modules, self._optimizers)
        if processes().is_main_process:
            write_log(self.folder / LOG, self.log)
        self._saved = time.perf_counter()


def _read_log(log_file: Path, start: int) -> list[dict[str, float]]:
    """Rows up to the resumed step; later ones belong to steps that will be done again."""
    if not log_file.exists():
        return []
    with log_file.open(newline="") as lines:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(lines)]
    return [row for row in rows if row["step"] <= start]
