"""Clips to train and measure on: captioned clips rendered on the fly, the shipped film, any folder of videos."""
