"""One training loop; VAE, judge and teacher."""
