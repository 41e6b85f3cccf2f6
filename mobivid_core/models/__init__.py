"""Models: VAE, diffusion transformer, text encoder; empty, so that sizes (`config`) come without torch."""
