"""Tri-level compression: sensitivity, plan, surgery, refit and recovery (paper: tri-level pruning).

In the order of the method: `calibration` draws the batches, `kd` compares student with teacher, `sensitivity` and
`estimators` score blocks, heads and FFN neurons, `planner` spends a budget on them, `search` decides about blocks,
`surgery` makes the smaller model, `refit` and `recovery` bring it back to the teacher, `arms` compares recipes.
"""
