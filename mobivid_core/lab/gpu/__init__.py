"""Train codec, judge, teacher and students on a GPU that is available for minutes, in resumable slices.

`mobivid gpu pack` writes what such a machine may lack (text encoder, image features) into one file;
`mobivid gpu run --minutes 12` there trains everything and leaves half-precision checkpoints.
"""
