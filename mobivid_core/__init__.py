"""MobiVid: a reproducible companion to "Taming Diffusion Transformer for Efficient
Mobile Video Generation in Seconds" (arXiv 2507.13343).

Importing this package is cheap: heavy libraries are imported by the modules that need them.
"""

__version__ = "0.1.0"
