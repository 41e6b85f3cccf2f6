"""Runner, verification, scorecard, teaching, site."""
