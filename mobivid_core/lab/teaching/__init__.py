"""Exercise notebooks for a class: one tagged master a notebook, two editions made from it.

`masters` reads and checks the masters in `notebooks/teaching/`, `placeholder` turns a solution into a gap to fill,
`editions` writes the student's and the instructor's notebooks, `verdict` and `checks` tell a student what is wrong
without giving the answer. `mobivid teaching` is the command line.
"""
