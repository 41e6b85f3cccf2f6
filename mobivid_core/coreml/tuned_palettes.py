"""Packages at the bytes of uniform 4 bits: uniform or by layer, each without and with tuning of what keeps 16 bits.

Paper: none; like SnapGen++ (arXiv 2601.08303), biases and norms are tuned after choosing bits, by self-distillation:
the weights stay on their palettes, and biases, norm weights and tensors below 2,048 values learn the outputs of the
16-bit model on its own states for captions of training. Uniform bits get the same updates.

Simplified: velocity against velocity at the 16-bit model's states, clip against clip of its latents; the host's
modulation table and the text encoder stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mobivid_core.coreml import mixed_bits
from mobivid_core.coreml.app import sample
from mobivid_core.coreml.convert import convert
from mobivid_core.coreml.graphs import Graph
from mobivid_core.coreml.mixed_bits import UNIFORM, parameters_of, set_palette
from mobivid_core.coreml.packages import Package, load_program
from mobivid_core.coreml.verify import Verification, remove, verify
from mobivid_core.coreml.weight_bits import compress_mixed, on_palettes

#: Largest rate of Adam.
RATE = 2e-3
#: States of the transformer in an update; the decoder, which takes no batch, learns from one clip at a time.
STATES = 8
#: Added to the seed of noise, so that no clip here starts from the noise of one that judges the result.
SEEDS = 500_000


class Mixed(NamedTuple):
    """What `mixed_app` made."""

    made: list[Verification]  # transformer and decoder of each choice
    average: float  # bits a weight, over both
    expected_db: float  # what bits by layer gain over uniform ones if the layers' damages add up


class Lesson(NamedTuple):
    """Inputs of a part (each (N, ...)), what the 16-bit part makes of them, and how many an update takes."""

    inputs: tuple[Tensor, ...]
    expected: Tensor
    batch: int = 1


def teacher_states(
    transformer: nn.Module, decoder: nn.Module, captions: Sequence[str], shape: tuple[int, ...],
    tables: Mapping[str, Tensor], seed: int,
) -> tuple[Lesson, Lesson, Callable[[], Tensor]]:  # fmt: skip
    """What the 16-bit parts make of N captions: lessons of the transformer (steps * N states) and decoder (N latents).

    The function samples latents (N, C, t, h, w) of the same noise again, with the transformer as it then is.
    """
    from mobivid_core.models.text import encode_text

    noise = torch.randn((len(captions), *shape), generator=torch.Generator().manual_seed(seed))
    text, mask = encode_text(list(captions))
    seen: list[tuple[Tensor, ...]] = []

    def watched(*inputs: Tensor) -> Tensor:
        out = transformer(*inputs)
        seen.append((*inputs[:3], inputs[3].expand(len(captions), -1, -1), out))
        return out

    with torch.no_grad():
        latents = sample(watched, noise, text, mask, tables)
        clips = _decoded(decoder, latents)
    *inputs, velocity = (torch.cat(parts) for parts in zip(*seen, strict=True))
    return (
        Lesson(tuple(inputs), velocity, STATES),
        Lesson((latents,), clips),
        lambda: sample(transformer, noise, text, mask, tables),
    )


def tune(module: nn.Module, palettes: Sequence[Tensor], lesson: Lesson, updates: int, seed: int) -> None:
    """Train all of a part but the weights on `palettes` to give the lesson's outputs, in place.

    Updates are Adam's, at a rate that falls to zero; `seed` orders the examples.
    """
    fixed = {id(p) for p in palettes}
    for parameter in module.parameters():
        parameter.requires_grad_(id(parameter) not in fixed)
    free = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(free, lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=RATE, total_steps=max(updates, 2))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(updates):
        chosen = torch.randperm(len(lesson.expected), generator=generator)[: lesson.batch]
        made = module(*(x[chosen] for x in lesson.inputs))
        loss = (made - lesson.expected[chosen]).square().mean() / lesson.expected.square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    module.requires_grad_(False)


def tuned_package(
    graph: Graph, package: Package, bits: Mapping[str, int], lesson: Lesson, folder: Path, name: str, *, updates: int,
    seed: int,
) -> Package:  # fmt: skip
    """A package with palettes of so many bits a layer, the rest tuned: `<graph>_<name>.mlpackage`.

    The 16-bit graph is left as it is; `bits` are those of each constant of its package.
    """
    module = copy.deepcopy(graph.module)
    layers = parameters_of(module, load_program(package.path))
    for layer, weight in layers.items():
        set_palette(weight, weight.detach().clone(), bits[layer])
    tune(module, list(layers.values()), lesson, updates, seed)
    draft = folder / f"{graph.name}_draft.mlpackage"
    made = convert(module, graph.inputs, graph.outputs, draft)
    try:
        return on_palettes(made, folder / f"{graph.name}_{name}.mlpackage")
    finally:
        remove(draft)


def mixed_app(
    parts: Sequence[tuple[Graph, Verification]], tables: dict[str, Tensor], damaged: Sequence[str],
    taught: Sequence[str], folder: Path, *, updates: int, seed: int = 0,
) -> Mixed:  # fmt: skip
    """Transformer and decoder at the bytes of uniform 4 bits, by layer and tuned.

    Writes `<part>_mixed`, `<part>_mixed_tuned` and `<part>_4_tuned`; `compress_and_verify` makes uniform 4 bits.

    Args:
        parts: Transformer and decoder with their float16 packages, in this order.
        tables: From `bundle.timestep_tables`.
        damaged: Captions of the clips on which damage is measured; none of those that judge the result.
        taught: Captions of training.
        folder: Gets the packages.
        updates: Of the tuning, for each package.
        seed: Of noise and of the order of examples.
    """
    seed += SEEDS
    step, decoder = (graph.module for graph, _ in parts)
    shape = tuple(parts[0][0].inputs["latents"].shape[1:])
    _, handed, again = teacher_states(step, decoder, damaged, shape, tables, seed)
    lessons = teacher_states(step, decoder, taught, shape, tables, seed + 1)[:2]
    packages = [verified.package for _, verified in parts]
    chosen, damage = mixed_bits.mixed_for([
        mixed_bits.Part(packages[0], step, again, _clip_error(step, packages[0], decoder, handed, again)),
        mixed_bits.Part(packages[1], decoder, lambda: _decoded(decoder, handed.inputs[0])),
    ])  # fmt: skip
    made = []
    for number, ((graph, _), bits, lesson) in enumerate(zip(parts, chosen, lessons, strict=True)):
        average = mixed_bits.average_bits(damage[[part == number for part, _ in damage["layer"]]])
        untuned = compress_mixed(packages[number], bits, folder / f"{graph.name}_mixed.mlpackage")
        made.append(verify(graph, untuned, bits=average))
        uniform = dict.fromkeys(bits, UNIFORM)
        for name, wanted, count in (("mixed_tuned", bits, average), ("4_tuned", uniform, float(UNIFORM))):
            tuned = tuned_package(graph, packages[number], wanted, lesson, folder, name, updates=updates, seed=seed)
            made.append(verify(graph, tuned, bits=count))
    return Mixed(made, mixed_bits.average_bits(damage), mixed_bits.expected_gain_db(damage))


def _decoded(decoder: nn.Module, latents: Tensor) -> Tensor:
    """Clips of (N, C, t, h, w) latents by a decoder that takes one."""
    return torch.cat([decoder(z) for z in latents.split(1)])


def _clip_error(
    step: nn.Module, package: Package, decoder: nn.Module, handed: Lesson, again: Callable[[], Tensor]
) -> float:
    """Squared error of the clip for one of the latents, at the errors that uniform bits make."""
    layers = parameters_of(step, load_program(package.path)).values()
    intact = [weight.detach().clone() for weight in layers]
    with torch.no_grad():
        for weight, before in zip(layers, intact, strict=True):
            set_palette(weight, before, UNIFORM)
        latents = again()
        for weight, before in zip(layers, intact, strict=True):
            weight.copy_(before)
        clip_error = (_decoded(decoder, latents) - handed.expected).square().mean()
    return float(clip_error / (latents - handed.inputs[0]).square().mean())
