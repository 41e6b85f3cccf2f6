"""Exercise notebooks for a class: one tagged master a notebook, two editions made from it.

`masters` reads and checks the masters in `notebooks/teaching/`, `editions` writes the student's notebooks, with a gap
to fill in place of each solution, and the instructor's, `verdict` and `checks` tell a student what is wrong
without giving the answer. `mobivid teaching` is the command line.
"""
