"""The same four-step app for ONNX Runtime: what an Android app would ship, exported, run and timed on this machine.

Paper: none (it ships Core ML). Text encoder, transformer step and decoder are the graphs that become Core ML packages;
torch exports them as ONNX files, ONNX Runtime executes them. Its Android build reads the same files. Int8: weights of
matrix products are stored as 8-bit integers, activations are quantised as they come ("dynamic"); convolutions stay in
float32, since the processor's kernels have no dynamic form of them.

Measured here is this processor alone: a phone's times are another matter.
"""

from __future__ import annotations

import contextlib
import io
import logging
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mobivid_core.coreml.app import sample, tokens, torch_clip
from mobivid_core.coreml.bundle import Generator, timestep_tables
from mobivid_core.coreml.export import mini_graphs
from mobivid_core.coreml.graphs import MASKED, Graph
from mobivid_core.coreml.mil import relative_error
from mobivid_core.errors import ExportError
from mobivid_core.measure import intervals
from mobivid_core.measure.intervals import Interval
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.phone.cpu_model import Processor, predict, record
from mobivid_core.profiles import Profile

#: Largest relative error against torch, both in float32.
GATE = 1e-4
_NEEDED = ("onnx", "onnxruntime", "onnxscript")
_PARTS = ("text_encoder", "dit", "decoder")


def export_onnx(graph: Graph, folder: Path) -> Path:
    """Write a graph as one self-contained ONNX file in float32.

    Args:
        graph: Module and example inputs; the shapes become fixed.
        folder: Gets `<name>.onnx`.

    Raises:
        ExportError: ONNX packages are missing, or torch cannot export the graph.
    """
    _require()
    path = Path(folder) / f"{graph.name}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    loggers, spoken = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")], io.StringIO()
    levels = [logger.level for logger in loggers]
    for logger in loggers:  # they list every operator of packages that are not installed, and constants left unfolded
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(spoken), contextlib.redirect_stderr(spoken):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph.module.eval(), tuple(graph.inputs.values()), str(path), input_names=list(graph.inputs),
                output_names=list(graph.outputs), dynamo=True, verbose=False, external_data=False,
            )  # fmt: skip
    except Exception as error:  # torch raises many kinds on an operator that it cannot write
        raise ExportError(f"{graph.name} cannot be written as ONNX: {error}") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    return path


def smaller(path: Path) -> Path:
    """A copy with 8-bit weights in the matrix products, `<name>_int8.onnx`.

    The weights use 7 of the 8 bits: x86 processors without VNNI add products of bytes in 16 bits, which overflow. With
    all 8 bits a step was .30 off on such a processor, and right on others.
    """
    _require()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = path.with_name(f"{path.stem}_int8.onnx")
    root, level = logging.getLogger(), logging.getLogger().level
    root.setLevel(logging.ERROR)  # it advises a pre-processing step that changes nothing here
    try:
        quantize_dynamic(
            path,
            target,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
    finally:
        root.setLevel(level)
    return target


@dataclass(frozen=True)
class OnnxApp:
    """Text encoder, transformer step and decoder as sessions, and the host's tables.

    Attributes:
        sessions: Part -> ONNX Runtime session.
        tables: From `bundle.timestep_tables`.
        megabytes: Of the files.
    """

    sessions: Mapping[str, object]
    tables: dict[str, Tensor]
    megabytes: float

    @classmethod
    def load(cls, folder: Path, tables: dict[str, Tensor], *, threads: int, int8: bool = False) -> OnnxApp:
        """Open the files of a folder.

        Args:
            folder: Holds the three files.
            tables: The host's tables.
            threads: Threads of one operation.
            int8: Take the transformer and the text encoder with 8-bit weights; the decoder's convolutions keep 32.

        Raises:
            ExportError: A file is missing.
        """
        _require()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        sessions, size = {}, 0
        for part in _PARTS:
            path = Path(folder) / f"{part}{'_int8' if int8 and part != 'decoder' else ''}.onnx"
            if not path.is_file():
                raise ExportError(f"{path} is missing; `second_runtime.write_app` makes it")
            sessions[part] = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            size += path.stat().st_size
        return cls(sessions, tables, size / 1e6)

    def run(self, part: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """First output of one part."""
        given = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in inputs.items()}
        return torch.from_numpy(self.sessions[part].run(None, given)[0])

    def clip(self, caption: str, noise: Tensor) -> Tensor:
        """One clip (1, 3, T, H, W) of a caption and its noise (1, C, t, h, w)."""
        ids, mask = tokens(caption)
        additive = torch.zeros(mask.shape).masked_fill(~mask, MASKED)
        text = self.run("text_encoder", {"input_ids": ids, "text_mask": additive})

        def step(latents: Tensor, states: Tensor, text_mask: Tensor, modulation: Tensor) -> Tensor:
            return self.run(
                "dit", {"latents": latents, "text": states, "text_mask": text_mask, "modulation": modulation}
            )

        return self.run("decoder", {"latents": sample(step, noise, text, mask, self.tables)})


def write_app(parts: Iterable[Graph], folder: Path) -> list[Path]:
    """Export every part in float32, and transformer and text encoder in int8 too; returns all files."""
    files = []
    for graph in parts:
        made = export_onnx(graph, folder)
        files += [made] if graph.name == "decoder" else [made, smaller(made)]
    return files


def compare(
    ours: Mapping[str, OnnxApp], by_torch: Callable[[str, Tensor], Tensor], pairs: list[tuple[str, Tensor]], *,
    frames: int, repeats: int = 5, runs: int = 2,
) -> tuple[pd.DataFrame, dict[str, Interval]]:  # fmt: skip
    """Parity and speed beside torch, in turns on this processor.

    Args:
        ours: "float32" and "int8" apps.
        by_torch: (caption, noise) -> clip by torch in float32, same weights.
        pairs: Captions and noises; parity takes all of them, time the first.
        frames: Frames of a clip.
        repeats: Timed clips in each run, after one to warm up.
        runs: Rounds of repeats.

    Returns:
        Rows with `runtime`, `MB`, `error` (largest relative one of any clip against torch), `ms a clip` (median),
        `frames/s`; and each app's speed over torch with its interval.

    Raises:
        ExportError: The float32 app is outside the gate.
    """
    expected = [by_torch(*pair) for pair in pairs]
    errors = {
        n: max(relative_error(a.clip(*p), e) for p, e in zip(pairs, expected, strict=True)) for n, a in ours.items()
    }
    if errors["float32"] > GATE:
        raise ExportError(f"ONNX Runtime's clips differ from torch's by {errors['float32']:.1e} (gate {GATE:.0e})")
    work: dict[str, Callable[[], object]] = {"torch": lambda: by_torch(*pairs[0])}
    work |= {name: lambda app=app: app.clip(*pairs[0]) for name, app in ours.items()}
    seconds: dict[str, list[list[float]]] = {name: [] for name in work}
    for _ in range(runs):
        for name in work:
            seconds[name].append([])
        for repeat in range(repeats + 1):
            for name, run in work.items():
                start = time.perf_counter()
                run()
                if repeat:
                    seconds[name][-1].append(time.perf_counter() - start)
    rows = []
    for name in work:
        median = float(np.median(np.concatenate(seconds[name])))
        size = ours[name].megabytes if name in ours else None
        label = f"ONNX Runtime, {name}" if name in ours else "torch, float32"
        rows.append((label, size, errors.get(name), 1e3 * median, frames / median))
    table = pd.DataFrame(rows, columns=["runtime", "MB", "error", "ms a clip", "frames/s"])
    return table, {name: intervals.speed(seconds["torch"], seconds[name]) for name in ours}


def try_app(
    profile: Profile, folder: Path, generator: Generator, vae: MobiVidVAE, pairs: list[tuple[str, Tensor]], *,
    threads: int, processor: Processor, repeats: int = 5, runs: int = 2,
) -> tuple[pd.DataFrame, dict[str, Interval]]:  # fmt: skip
    """Write a profile's app as ONNX files, run both copies beside torch, and predict torch's time.

    Args:
        profile: Whose models.
        folder: Gets the files.
        generator: The transformer that goes onto the phone.
        vae: Decodes.
        pairs: Captions and noises.
        threads: Threads of torch and of ONNX Runtime.
        processor: From `phone.cpu_model.compare`: this machine as the device model sees it.
        repeats: As in `compare`.
        runs: As in `compare`.

    Returns:
        As `compare`, with `predicted ms` of torch's operations.
    """
    tables = timestep_tables(generator.model, generator.sigmas)
    write_app(mini_graphs(profile), folder)
    apps = {name: OnnxApp.load(folder, tables, threads=threads, int8=name == "int8") for name in ("float32", "int8")}

    def by_torch(caption: str, noise: Tensor) -> Tensor:
        return torch_clip(generator.model, vae, caption, noise, tables)

    table, speeds = compare(apps, by_torch, pairs, frames=profile.frames, repeats=repeats, runs=runs)
    seconds = predict(record(lambda: by_torch(*pairs[0])), processor)
    table["predicted ms"] = [1e3 * seconds, None, None]
    return table, speeds


def _require() -> None:
    """Refuse early and in one line.

    Raises:
        ExportError: A package is missing.
    """
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise ExportError(f"the second runtime needs {', '.join(missing)}: pip install {' '.join(missing)}")
