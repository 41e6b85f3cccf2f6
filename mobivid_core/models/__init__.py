"""Models: VAE, diffusion transformer, text encoder and the pipeline around them.

Empty on purpose: import the module you need, so that sizes (`config`) come without torch and pipelines stay lazy.
"""
