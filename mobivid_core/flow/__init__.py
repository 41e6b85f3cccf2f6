"""Flow matching: the path, guidance and samplers."""
