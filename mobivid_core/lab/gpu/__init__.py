"""One command for a GPU that is at hand for minutes: codec, judge, teacher and students in slices of the time.

`python -m mobivid_core.lab.gpu pack` writes what such a machine may lack (text encoder, image features) into one file;
`python -m mobivid_core.lab.gpu run --minutes 12` there trains everything and leaves half-precision checkpoints.
"""
