"""From a Python loop to machine code: the only place that imports llvmlite."""
