"""What several benchmarks share: inputs, models of a chosen size, clocks and memory."""
