"""Captions in, clips out: the diffusers pipeline around text encoder, transformer and VAE."""
