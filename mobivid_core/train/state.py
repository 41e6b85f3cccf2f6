"""Atomic training state: one safetensors file of weights, averages and optimiser moments.

Sharded tensors are gathered when they are written, so that a state can be resumed on any number of processes.
"""

from __future__ import annotations

import csv
import hashlib
import json
import time
from collections import defaultdict
from pathlib import Path

import torch
from accelerate.utils import broadcast_object_list
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mobivid_core.errors import CheckpointError
from mobivid_core.files import replacing, write_bytes
from mobivid_core.train.distributed import like, processes, total, whole

STATE, LOG = "state.safetensors", "log.csv"


def folder_for(stage: Path, *data: Tensor) -> Path:
    """Folder below `stage` for just these data (of the first process): other data never go on from its state."""
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


class Keeper:
    """State and log of one run, earlier parts included, in a folder; without a folder it keeps nothing."""

    def __init__(
        self,
        folder: Path | None,
        modules: dict[str, nn.Module],
        optimizers: dict[str, torch.optim.Optimizer],
        every_s: float,  # seconds between saved states
    ) -> None:
        self.folder, self.log = folder, []
        self._modules, self._optimizers, self._every_s = modules, optimizers, every_s
        self._saved = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds that the log says have been spent."""
        return self.log[-1]["seconds"] if self.log else 0.0

    def load(self) -> int:
        """Go on from the folder's state, or raise CheckpointError; returns the steps done, 0 without a state."""
        if not self.folder:
            return 0
        if processes().is_main_process:
            for part in self.folder.glob(".state-*.safetensors"):  # left by a killed run, never finished
                part.unlink(missing_ok=True)
        path, log, start = self.folder / STATE, self.folder / LOG, 0
        if path.exists():
            try:
                start = self._read(path)
            except Exception as error:
                raise CheckpointError(
                    f"the training state {path} cannot be read into this model ({error}); delete it to start this "
                    "training again, or run with the sizes that made it"
                ) from error
        if log.exists():  # later rows belong to steps that will be done again
            with log.open(newline="") as lines:
                rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(lines)]
            self.log = [row for row in rows if row["step"] <= start]
        return start

    def _read(self, path: Path) -> int:
        stored: dict[str, dict[str, Tensor]] = defaultdict(dict)
        with safe_open(path, "pt") as file:
            step = json.loads(file.metadata()["step"])
            for key in file.keys():
                kind, name, rest = key.split("/", 2)
                stored[f"{kind}/{name}"][rest] = file.get_tensor(key)
        for name, module in self._modules.items():
            own = module.state_dict()
            found = stored[f"module/{name}"]
            module.load_state_dict({k: like(v, own[k]) if k in own else v for k, v in found.items()})
        for name, optimizer in self._optimizers.items():
            slots: dict[int, dict[str, Tensor]] = defaultdict(dict)
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            for key, value in stored[f"optimizer/{name}"].items():
                index, slot = key.split("/")
                slots[int(index)][slot] = like(value, parameters[int(index)])
            optimizer.load_state_dict({"state": dict(slots), "param_groups": optimizer.state_dict()["param_groups"]})
        return step

    def save_if_due(self, step: int) -> None:
        """Save if the last save is long enough ago; several processes follow the first one's clock."""
        late = processes().is_main_process and time.perf_counter() - self._saved > self._every_s
        if self.folder and total({"late": float(late)})["late"]:
            self.save(step)

    def save(self, step: int) -> None:
        """Write state and log, each in one atomic move; of several processes, the first writes."""
        if not self.folder:
            return
        tensors = {f"module/{n}/{k}": v for n, module in self._modules.items() for k, v in module.state_dict().items()}
        for name, optimizer in self._optimizers.items():
            for index, slot in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer/{name}/{index}/{k}": torch.as_tensor(v) for k, v in slot.items()}
        full = {k: whole(v.detach()).contiguous() for k, v in tensors.items()}
        if processes().is_main_process:
            write_bytes(self.folder / STATE, save(full, {"step": json.dumps(step)}))
            write_log(self.folder / LOG, self.log)
        self._saved = time.perf_counter()
