"""What the loss of each block, head and FFN neuron costs."""
