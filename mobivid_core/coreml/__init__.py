"""Core ML graphs, conversion, packages, their verification on any machine, the app loop."""
