"""From a slice on its own grid to the network's input: pure functions of arrays."""
