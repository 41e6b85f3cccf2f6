"""The paper's steps on LTX-Video's own weights: import, prune and distil at full scale.

Empty on purpose: import the module you need. `README.md` beside this file is the page to follow.
"""
