"""The reproduction runner: notebooks in order, cached by content, resumable, strict.

`source` reads notebooks and checks what is passed to them, `fingerprint` says whether anything
they depend on changed, `kernel` runs them in this very environment, `cache` remembers what they
wrote, `chain` puts it together and `outputs` copies outputs back into the notebooks.
"""
