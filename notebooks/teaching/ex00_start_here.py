# %% [markdown]
# # Exercises to notebook 00: the map
#
# Three exercises on [00_start_here](../../notebooks/00_start_here.ipynb): what a clip costs, how a number is known, and what
# few steps lose. About 20 minutes. Fill in each `...`, run the cell below it, and read what the check says.

# %%
import torch

from mobivid_core.teaching.checks import start as check

# %% [markdown] tags=["exercise"]
# ## Exercise 1 · Network calls
#
# The cost of sampling is counted in calls of the transformer. Guidance at scale $g$ combines a prediction with the
# caption and one without:
#
# $$v = v_\varnothing + g\,(v_c - v_\varnothing)$$
#
# Write a function that counts the calls for one clip. Read the formula before you decide which scales are cheap.

# %% tags=["solution"]
def network_calls(steps: int, guidance: float) -> int:
    """Calls of the transformer for one clip."""
    return steps * (1 if guidance == 1.0 else 2)

# %% tags=["check"]
check.calls(network_calls)

# %% [markdown] tags=["instructor"]
# **Note.** At $g = 1$ the terms without caption cancel, which is why "no guidance" is scale 1 and not 0. The usual slip is to
# forget the second call. Ask afterwards: 80 calls against 4; which part of the 20x costs quality, which is free?

# %% [markdown] tags=["exercise"]
# ## Exercise 2 · How is it known?
#
# Give each statement its evidence class, one of `measured`, `derived`, `paper`, `review`, `third-party`, `vendor`, `assumed`,
# as a dictionary from letter to class.
#
# | | statement | where it comes from |
# |---|---|---|
# | A | The miniature teacher gets all four attributes right in most clips | 256 clips, read by the judge in notebook 02 |
# | B | The reconstructed mobile model has 959,697,024 parameters | summed over its modules' sizes |
# | C | The server model has 2 billion parameters | Table 1 of arXiv 2507.13343 |
# | D | 28 blocks become 20 | a public note that cites the second version of the paper |
# | E | Blocks, heads and FFN are the three levels of pruning | OpenReview, the summary of somebody who had the PDF |
# | F | The hidden width is 2048 | it fits the published sizes; nobody has published it |

# %% tags=["solution"]
answer = {"A": "measured", "B": "derived", "C": "paper", "D": "third-party", "E": "review", "F": "assumed"}

# %% tags=["check"]
check.evidence(answer)

# %% [markdown] tags=["instructor"]
# **Note.** B and F are the pair worth talking about: the count of B is exact arithmetic *on top of* F. An exact number can stand
# on an assumption; the class of a number says how it was made, not how sure it is.

# %% [markdown] tags=["exercise"]
# ## Exercise 3 · Two debts
#
# The cell below makes one clip three times, from the same noise. Compute the root-mean-square distance of the frames of
# each cheap clip from the full one, as a dictionary with the keys `"4 steps, guided"` and `"4 steps, unguided"`. Then
# decide from your numbers which debt is larger here: that of few `"steps"` (with guidance kept) or what leaving out
# `"guidance"` adds to it.

# %%
from mobivid_core.models.pipeline import MobiVidPipeline

pipeline = MobiVidPipeline.from_shipped()
pipeline.set_progress_bar_config(disable=True)
noise = torch.randn(1, 128, 3, 4, 4, generator=torch.Generator().manual_seed(3))
samplers = {"full": (16, 3.0), "4 steps, guided": (4, 3.0), "4 steps, unguided": (4, 1.0)}
frames = {
    name: pipeline(
        "a green star moving right on a plain background", latents=noise, output_type="pt",
        num_inference_steps=steps, guidance_scale=scale,
    ).frames[0]  # (T, 3, H, W) in [0, 1]
    for name, (steps, scale) in samplers.items()
}

# %% tags=["solution"]
cheap_clips = ("4 steps, guided", "4 steps, unguided")
distance = {name: (frames[name] - frames["full"]).square().mean().sqrt().item() for name in cheap_clips}
added = distance["4 steps, unguided"] - distance["4 steps, guided"]
larger_debt = "steps" if distance["4 steps, guided"] > added else "guidance"

# %% tags=["check"]
check.debts(distance, larger_debt)

# %% [markdown] tags=["instructor"]
# **Note.** The verdict follows the student's own numbers: which debt is larger depends on the prompt and the noise. Let the class
# change the seed and vote; then show `figures/distill_few_steps.png`, where the same question is asked over many clips.
# Pixel distance is a poor judge of quality: a clip that moves half a pixel is far away and looks the same.
