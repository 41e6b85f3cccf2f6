"""The same four-step app for ONNX Runtime: what an Android app would ship, exported, run and timed on this machine.

Paper: none (it ships Core ML). Text encoder, transformer step and decoder are the graphs that become Core ML packages;
torch exports them as ONNX files, which ONNX Runtime executes here, and its Android build on a phone. Int8: weights of
matrix products are stored as 8-bit integers, activations are quantised in each call ("dynamic"); convolutions stay in
float32, since the processor's kernels have no dynamic form of them. Times are this processor's, not a phone's.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mobivid_core.coreml.app import App, torch_clip
from mobivid_core.coreml.bundle import Generator, timestep_tables
from mobivid_core.coreml.export import mini_graphs
from mobivid_core.coreml.graphs import Graph
from mobivid_core.coreml.mil import relative_error
from mobivid_core.errors import ExportError
from mobivid_core.measure import intervals
from mobivid_core.measure.intervals import Interval
from mobivid_core.models.vae import MobiVidVAE
from mobivid_core.phone.cpu_model import Processor, record
from mobivid_core.phone.turns import alternating_seconds
from mobivid_core.profiles import Profile

#: Largest relative error against torch, both in float32.
GATE = 1e-4
_NEEDED = ("onnx", "onnxruntime", "onnxscript")


def export_onnx(graph: Graph, folder: Path) -> Path:
    """Write a graph as one self-contained ONNX file `<name>.onnx` in float32, at the shapes of its example inputs."""
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise ExportError(f"the second runtime needs {', '.join(missing)}: pip install {' '.join(missing)}")
    path = folder / f"{graph.name}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _quiet():
            torch.onnx.export(
                graph.module.eval(), tuple(graph.inputs.values()), str(path), input_names=list(graph.inputs),
                output_names=list(graph.outputs), dynamo=True, verbose=False, external_data=False,
            )  # fmt: skip
    except Exception as error:  # torch raises many kinds on an operator that it cannot write
        raise ExportError(f"{graph.name} cannot be written as ONNX: {error}") from error
    return path


def smaller(path: Path) -> Path:
    """A copy with 8-bit weights in the matrix products, `<name>_int8.onnx`.

    The weights use 7 of the 8 bits: x86 processors without VNNI add products of bytes in 16 bits, which overflow. With
    all 8 bits a step was .30 off on such a processor, and right on others.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = path.with_name(f"{path.stem}_int8.onnx")
    with _quiet():
        quantize_dynamic(
            path, target, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True, reduce_range=True,
            weight_type=QuantType.QInt8,
        )  # fmt: skip
    return target


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without notices below errors.

    The exporter lists every operator of packages that are not installed and constants left unfolded; the quantiser
    advises a pre-processing step that changes nothing here.
    """
    spoken = io.StringIO()
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(spoken), contextlib.redirect_stderr(spoken):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


@dataclass(frozen=True)
class OnnxApp(App):
    """The parts as ONNX Runtime sessions."""

    megabytes: float  # of the files

    @classmethod
    def load(cls, folder: Path, tables: dict[str, Tensor], *, threads: int, int8: bool = False) -> OnnxApp:
        """Open the three files of a folder; an operation runs in `threads` threads.

        `int8` takes transformer and text encoder with 8-bit weights; the decoder's convolutions keep 32. An ExportError
        if a file is missing.
        """
        end = "_int8" if int8 else ""
        paths = [folder / f"{name}.onnx" for name in (f"text_encoder{end}", f"dit{end}", "decoder")]
        if missing := [path for path in paths if not path.is_file()]:
            raise ExportError(f"{missing[0]} is missing; `second_runtime.write_app` makes it")
        return cls(*(_session(path, threads) for path in paths), tables, sum(p.stat().st_size for p in paths) / 1e6)


def _session(path: Path, threads: int) -> Callable[..., Tensor]:
    """First output of a file on inputs in its own order."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        given = {name: np.ascontiguousarray(x.numpy()) for name, x in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    return run


def write_app(parts: Iterable[Graph], folder: Path) -> None:
    """Export every part in float32, and transformer and text encoder in int8 too."""
    for graph in parts:
        made = export_onnx(graph, folder)
        if graph.name != "decoder":
            smaller(made)


def compare(
    ours: Mapping[str, OnnxApp], by_torch: Callable[[str, Tensor], Tensor], pairs: list[tuple[str, Tensor]], *,
    frames: int, repeats: int = 5, runs: int = 2,
) -> tuple[pd.DataFrame, dict[str, Interval]]:  # fmt: skip
    """Parity and speed of a "float32" and an "int8" app beside torch in float32, in turns on this processor.

    Parity takes all captions and noises, time the first: `runs` rounds of `repeats` clips, after one to warm up. An
    ExportError if the float32 app is outside the gate.

    Returns:
        Rows with `runtime`, `MB`, `error` (largest relative one of any clip against torch), `ms a clip` (median),
        `frames/s`; and each app's speed over torch with its interval.
    """
    expected = [(pair, by_torch(*pair)) for pair in pairs]
    errors = {name: max(relative_error(app.clip(*pair), e) for pair, e in expected) for name, app in ours.items()}
    if errors["float32"] > GATE:
        raise ExportError(f"ONNX Runtime's clips differ from torch's by {errors['float32']:.1e} (gate {GATE:.0e})")
    work = {"torch": by_torch} | {name: app.clip for name, app in ours.items()}
    calls = {name: partial(clip, *pairs[0]) for name, clip in work.items()}
    rounds = [alternating_seconds(calls, repeats) for _ in range(runs)]
    seconds = {name: [one[name] for one in rounds] for name in work}
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
    """Write a profile's app as ONNX files into `folder`, run both copies beside torch, and predict torch's time.

    Torch and ONNX Runtime take as many `threads`. `processor`, from `phone.cpu_model.compare`, is this machine as the
    device model sees it; the rest, and what comes back, is as in `compare`, with `predicted ms` of torch's operations.
    """
    tables = timestep_tables(generator.model, generator.sigmas)
    write_app(mini_graphs(profile), folder)
    apps = {name: OnnxApp.load(folder, tables, threads=threads, int8=name == "int8") for name in ("float32", "int8")}
    by_torch = partial(torch_clip, generator.model, vae, tables=tables)
    table, speeds = compare(apps, by_torch, pairs, frames=profile.frames, repeats=repeats, runs=runs)
    seconds = processor.seconds(record(partial(by_torch, *pairs[0])))
    table["predicted ms"] = [1e3 * seconds, None, None]
    return table, speeds
