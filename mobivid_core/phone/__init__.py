"""What a model costs on a device: counts, roofline, tiled FFN."""
