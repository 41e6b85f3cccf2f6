"""Damage of removing each block, head and FFN neuron."""
