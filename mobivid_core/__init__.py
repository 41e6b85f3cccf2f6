"""MobiVid: a reproducible companion to "Taming Diffusion Transformer for Efficient
Mobile Video Generation in Seconds" (arXiv 2507.13343).

Importing this package is cheap: heavy libraries are imported by the modules that need them.
"""

__version__ = "0.1.0"

import sys as _sys

# While runpy looks for `python -m mobivid_core...`, argv[0] is still "-m": only a command gets here this way.
if _sys.argv[:1] == ["-m"]:
    from mobivid_core.command import quiet_start as _quiet_start

    _quiet_start()
