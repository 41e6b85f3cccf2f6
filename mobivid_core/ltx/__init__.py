"""The paper's scale, for whoever holds weights: diffusers' LTX-Video in, a pruned and distilled student out.

Empty on purpose: import the module you need. `README.md` beside this file is the page to follow.
"""
