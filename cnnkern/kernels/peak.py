"""How fast this core can multiply and add: the bound of every dense kernel."""

from ..codegen.isa import Isa
from ..codegen.peak import fma_chains
from ..codegen.vector import floats


def fma_peak(isa: Isa):
    """Return the kernel that does FMA_CHAINS vector multiply-adds per tile; record PEAK."""
    chains = fma_chains(isa)

    def kernel(p, scratch, begin, end):
        y = floats(p.y)
        y[0] = chains(end - begin)

    return kernel
