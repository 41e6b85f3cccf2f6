"""Savings of compression, pruning and distillation at the paper's scale, alone and stacked (R3.1).

All eight combinations are counted and priced by the phone's device model; quality stands beside the combinations that
were trained here. Without compression means the usual 4x8x8 VAE with 2x2 patches, as Wan2.1 has it.
"""

from __future__ import annotations

import itertools

import pandas as pd

from mobivid_core.models.config import MOBILE, SERVER
from mobivid_core.models.counts import clip_flops, dit_flops, dit_params, latent_grid
from mobivid_core.phone.devices import Device
from mobivid_core.phone.efficiency import calibration_rows, fit_efficiency
from mobivid_core.phone.roofline import clip_seconds, clip_stages

#: Tokens of the usual codec: 4x8x8, and two by two latents to a token.
USUAL = (4, 16, 16)
COMPRESSED = (8, 32, 32)
CLIP, TEXT_TOKENS = (49, 384, 512), 77


def stacked_costs(device: Device) -> pd.DataFrame:
    """Eight rows: tokens, parameters, FLOPs and predicted seconds of one clip on a phone's engine, without decoder.

    Forty guided steps before and four unguided ones after distillation; `cheaper` is how many times less FLOPs than
    with nothing of the three.
    """
    efficiency = fit_efficiency(calibration_rows()).typical
    rows = []
    for compressed, pruned, distilled in itertools.product((False, True), repeat=3):
        grid = latent_grid(*CLIP, COMPRESSED if compressed else USUAL)
        sizes = MOBILE if pruned else SERVER
        sampler = {"steps": 4 if distilled else 40, "guidance": not distilled}
        flops = clip_flops(dit_flops(sizes, grid, TEXT_TOKENS)["total"], **sampler)
        stages = clip_stages(sizes, grid, text_tokens=TEXT_TOKENS, **sampler)
        rows.append(
            {
                "compressed": compressed,
                "pruned": pruned,
                "distilled": distilled,
                "tokens": grid[0] * grid[1] * grid[2],
                "parameters (B)": dit_params(sizes)["total"] / 1e9,
                "TFLOP a clip": flops / 1e12,
                "seconds (predicted)": clip_seconds(stages, device, efficiency),
            }
        )
    table = pd.DataFrame(rows)
    return table.assign(cheaper=table["TFLOP a clip"].iloc[0] / table["TFLOP a clip"])


def with_quality(costs: pd.DataFrame, stacking: pd.DataFrame) -> pd.DataFrame:
    """The rows of `stacked_costs` with the miniature's measured ratios; blank means not trained here."""
    # undistilled rows in few steps are left out
    full = ~stacking["distilled"] & stacking["sampler"].str.contains(", guided")
    kept = stacking[full | stacking["distilled"]].assign(compressed=True)
    columns = ["accuracy / teacher", "accuracy low", "accuracy high"]
    columns += ["Frechet / teacher", "Frechet low", "Frechet high"]
    keys = ["compressed", "pruned", "distilled"]
    renamed = {name: f"{name} (miniature)" for name in columns}
    return costs.merge(kept[keys + columns], on=keys, how="left").rename(columns=renamed)


def stacked_told(table: pd.DataFrame, source: str) -> str:
    """A finding from `with_quality`'s table: what each part saves alone and together, and the quality of the stack."""
    rows = table.set_index(["compressed", "pruned", "distilled"])
    times = rows["cheaper"]
    alone = times[True, False, False], times[False, True, False], times[False, False, True]
    product, every = alone[0] * alone[1] * alone[2], rows.loc[(True, True, True)]
    kept, low, high = (every[f"{name} (miniature)"] for name in ("accuracy / teacher", "accuracy low", "accuracy high"))
    return (
        f"Compression alone saves {alone[0]:.1f}x of the FLOPs, pruning {alone[1]:.1f}x, distillation {alone[2]:.0f}x, "
        f"together {times[True, True, True]:.0f}x ({product:.0f}x if they only multiplied), and the stack keeps "
        f"{kept:.3f} [{low:.3f}, {high:.3f}] of the teacher's accuracy (bootstrap over captions). Work is counted at "
        f"paper scale; quality is measured on the miniature, after short trainings of equal compute. {source}"
    )
