"""One command for a GPU that is at hand for minutes: codec, judge, teacher and students in slices of the time.

`mobivid gpu pack` writes what such a machine may lack (text encoder, image features) into one file;
`mobivid gpu run --minutes 12` there trains everything and leaves half-precision checkpoints.
"""
