# %% [markdown]
# # Exercises to notebook 01: VAE compression
#
# Three exercises on [01_vae_compression](../../notebooks/01_vae_compression.ipynb): tokens, where attention's square takes
# over, and rate against distortion. About 40 minutes.

# %%
import numpy as np

from mobivid_core.models.config import SERVER
from mobivid_core.teaching.checks import vae as check

# %% [markdown] tags=["exercise"]
# ## Exercise 1 · Tokens
#
# A video VAE at ratio $t \times h \times w$ codes the first frame alone, so that an image is a video of one frame, and then
# groups of $t$ frames. One latent position is one token. Write the count for a clip of `frames` x `height` x `width`.

# %% tags=["solution"]
def tokens_of(frames: int, height: int, width: int, ratio: tuple[int, int, int]) -> int:
    """Tokens of one clip; ratio is (time, height, width)."""
    t, h, w = ratio
    return (1 + (frames - 1) // t) * (height // h) * (width // w)

# %% tags=["check"]
check.tokens(tokens_of)

# %% [markdown] tags=["instructor"]
# **Note.** `frames / t` is the common slip: 49 frames at 8 give 6 instead of 7. Ask what the number of latent channels changes
# (the width of a token and the first and last layer, nothing else).

# %% [markdown] tags=["exercise"]
# ## Exercise 2 · Where does the square take over?
#
# For $N$ tokens, $P$ parameters, width $d$ and $L$ blocks a forward pass costs about
#
# $$\underbrace{2NP}_{\text{linear layers}} + \underbrace{4N^2 d L}_{\text{attention scores}} \quad\text{FLOPs.}$$
#
# At which number of tokens do both terms cost the same? Use the values of the paper-scale server model below. Predict first:
# does the paper's clip (1,344 tokens) lie below or above?

# %%
parameters, width, blocks = 1_916_569_728, SERVER.hidden, SERVER.blocks
print(f"P = {parameters:,}, d = {width}, L = {blocks}")

# %% tags=["solution"]
tokens_at_equal_cost = parameters / (2 * width * blocks)

# %% tags=["check"]
check.crossover(tokens_at_equal_cost, parameters, width, blocks)

# %% [markdown] tags=["instructor"]
# **Note.** About 16,700 tokens. At 8x32x32 (1,344) the scores are a small share, at 4x8x8 (39,936) most of the work: notebook 01's
# table `vae_denoiser_cost` has both. A good follow-up: why would a faster attention kernel help one of the two and not the other?

# %% [markdown] tags=["exercise"]
# ## Exercise 3 · Rate and distortion, in closed form
#
# Cut clips into blocks of one token each ($8 \times 32 \times 32$ pixels, three colours), and project them on their principal
# axes. The variances along the axes, in falling order, are the `spectrum`; keeping the first `kept` of them (that many latent
# channels) is the best linear code of that size.
#
# Write its PSNR in decibels: $10 \log_{10}(\text{range}^2 / \text{MSE})$, where the values lie in $[-1, 1]$ and the MSE is the mean
# over **all** values of a block.

# %%
from mobivid_core.data.film import film_clips

film = film_clips("test", frames=9, size=128, limit=26).clips[:, :, 1:]  # (26, 3, 8, 128, 128)
patches = film.unfold(3, 32, 32).unfold(4, 32, 32)  # (26, 3, 8, 4, 4, 32, 32)
patches = patches.permute(0, 3, 4, 1, 2, 5, 6).reshape(-1, 3 * 8 * 32 * 32).double().numpy()
centred = patches - patches.mean(axis=0)
singular = np.linalg.svd(centred @ centred.T, compute_uv=False)  # squared singular values of the blocks
spectrum = np.zeros(patches.shape[1])
spectrum[: len(singular)] = singular / len(patches)
print(f"{len(patches)} blocks of {patches.shape[1]:,} values; the first axis holds {spectrum[0] / spectrum.sum():.0%} of the variance")

# %% tags=["solution"]
def psnr_db(spectrum: np.ndarray, kept: int) -> float:
    """PSNR of the code that keeps the first `kept` axes."""
    mse = spectrum[kept:].sum() / len(spectrum)
    return 10 * np.log10(2**2 / mse)

# %% tags=["check"]
check.pca_psnr(psnr_db, spectrum)

# %% [markdown] tags=["instructor"]
# **Note.** The axes are fitted to the very blocks that they code: with 416 blocks, 416 axes would be lossless, which is over-fitting
# in its purest form. Notebook 01 fits on training shots and measures on held-out ones, so its decibels are lower. Discuss: what would make "8x32x32 is too coarse" a statement about channels?
