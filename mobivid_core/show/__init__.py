"""Results, style, clips, widgets and figures."""
