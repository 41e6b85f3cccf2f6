"""Getting the model onto a phone: counts, tiled FFN, Core ML packages, their verification, device predictions."""
