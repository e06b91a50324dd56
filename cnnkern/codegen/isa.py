"""Instruction sets: what the emitter must know about registers, and which one is here."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import llvmlite.binding as llvm


@dataclass(frozen=True)
class Isa:
    """One instruction set as the code generator sees it."""

    name: str
    lanes: int  # float32 per vector register
    registers: int
    heights: tuple[int, ...]  # tile heights, tallest first; see each record's reason
    vectors: int  # vector columns of a full tile
    unit: int  # columns of the shorter vector that a narrow tile may end in
    needs: frozenset[str]  # CPU features, LLVM's spelling
    cpu: str  # target of the code where the host has a wider set, LLVM's spelling
    has_fma: bool
    has_masks: bool  # for loads and stores, at no cost
    has_broadcast: bool  # the multiply-add reads one float for all lanes, at no cost
    unroll: int  # products of a long sum per step of its loop
    paired_sum: int  # products of tiles that take turns in pairs

    @property
    def tile_columns(self) -> int:
        """NR, the columns of a full tile."""
        return self.lanes * self.vectors

    @property
    def least_rows(self) -> int:
        """Pixels of a full tile whose sums keep the multiply-add units busy."""
        return BUSY_SUMS * self.unit // self.tile_columns

    @property
    def first_tiles(self) -> int:
        """Return how many tiles of a panel ask for its filters, and for nothing else.

        One, where the others find them in L1; none, where every tile has time for both.
        """
        return int(self.unroll > 1)

    @property
    def panels_of_pixel(self) -> int:
        """Panels of a tile of one pixel: it has the sums that keep the units busy."""
        return BUSY_SUMS // self.vectors

    def depthwise_rows(self, taps: int, stride: int) -> int:
        """Return how many output rows a depthwise tile does at once.

        Two, if they share inputs and enough sums, two rows of filters and one input fit.
        """
        fits = BUSY_SUMS + 2 * taps + 1 <= self.registers
        return 2 if taps > 1 and stride == 1 and fits else 1

    @property
    def narrow_pixels(self) -> int:
        """Pixels of a tile of few columns: their sums fill at most 3/4 of the registers."""
        return self.lanes // 2

    @property
    def plane_columns(self) -> int:
        """Columns that are few for one channel: not more than a vector of columns has use for.

        Their sums fill at most the registers of a full tile.
        """
        return min(self.unit, self.heights[0] * self.vectors // PLANE_VECTORS)


# 32 registers: 14 x 2 accumulators, 2 filter vectors; the FMA broadcasts pixels itself. Half
# a vector takes half the time where the unit is half as wide (Zen 4).
AVX512 = Isa(
    "avx512f", 16, 32, (14, 12, 10, 8, 7, 6, 4, 2, 1), 2, 8,
    frozenset({"avx512f", "avx512vl"}), "x86-64-v4",
    has_fma=True, has_masks=True, has_broadcast=True, unroll=1, paired_sum=0,
)  # fmt: skip
# 16 registers: 6 x 2 accumulators, 2 filter vectors, 1 broadcast pixel. Half of what such a
# tile does is not a multiply-add: decoders that are slow or shared between threads limit it.
# Small tiles of short sums wait for what they read, of which the processor brings more where it
# can tell what comes next: in pairs they took up to a fifth longer.
AVX2 = Isa(
    "avx2", 8, 16, (6, 4, 3, 2, 1), 2, 8, frozenset({"avx2", "fma"}), "haswell",
    has_fma=True, has_masks=False, has_broadcast=False, unroll=4, paired_sum=96,
)  # fmt: skip
# 16 registers of 4 lanes (SSE2; NEON has 32): 6 x 2 accumulators, 2 filter vectors, 1 pixel.
GENERIC = Isa(
    "generic", 4, 16, (6, 4, 3, 2, 1), 2, 4, frozenset(),
    "x86-64" if platform.machine() in ("x86_64", "AMD64") else "",
    has_fma=platform.machine() in ("arm64", "aarch64"), has_masks=False, has_broadcast=False,
    unroll=1, paired_sum=96,
)  # fmt: skip

# At most so many columns are few: a mask or a score, two classes, a picture.
NARROW_COLUMNS = 3
# Vectors of pixels that share the filters of one channel.
PLANE_VECTORS = 2

LINE = 64  # bytes of a cache line
# The last products of a sum, added row by row: the filters of two fit beside what remains.
TAIL = 2
LONG_SUM = 64  # products: while so many are added, others' filters are asked for

# Independent multiply-adds that keep every unit busy: latency 4 x 2 per cycle. The peak is
# measured with more, which fit into 16 registers.
BUSY_SUMS, FMA_CHAINS = 8, 12

ISAS = (AVX512, AVX2, GENERIC)  # widest first

# LLVM tells the features of its host only; these names let tests stand in for other CPUs.
_OTHER_CPUS = {
    "haswell": AVX2.needs,
    "x86-64-v3": AVX2.needs,
    "x86-64-v4": AVX512.needs | AVX2.needs,
    "skylake-avx512": AVX512.needs | AVX2.needs,
}


def n_requests(n_tiles: int, products: int, first_tiles: int, unroll: int) -> int:
    """Return how often the tiles of a panel ask for a line of what is to come.

    Each but the first ones asks for two, one per half of its share, in every step of its loop;
    the last products are not in there.
    """
    return 2 * (n_tiles - first_tiles) * (max(products - TAIL, 0) // unroll)


@cache
def _cpuinfo(file: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Return what Linux tells about the first CPU, or nothing where it tells no flags.

    It spells the features in `Isa.needs` like LLVM, which takes longer to import.
    """
    try:
        with file.open() as lines:  # Linux makes the text while it is read, CPU by CPU
            pairs = [line.partition(":") for line in takewhile(str.strip, lines)]
    except OSError:
        return {}
    info = {key.strip(): value.strip() for key, _, value in pairs}
    return info if "flags" in info else {}


def cpu_name() -> str:
    """Return what identifies the CPU; ``NUMBA_CPU_NAME`` overrides the host's."""
    if chosen := os.environ.get("NUMBA_CPU_NAME"):
        return chosen
    if info := _cpuinfo():
        return " ".join(info.get(key, "") for key in ("vendor_id", "cpu family", "model"))
    return _llvm().get_host_cpu_name()


@cache
def cpu_features() -> frozenset[str]:
    """Return the features of `cpu_name()`, LLVM's spelling without the plus sign."""
    if os.environ.get("NUMBA_CPU_NAME"):
        return _OTHER_CPUS.get(cpu_name(), frozenset())
    if info := _cpuinfo():
        return frozenset(info["flags"].split())
    return frozenset(name for name, on in _llvm().get_host_cpu_features().items() if on)


def _llvm() -> Any:
    """Return LLVM, imported by those who compile and where the system tells no features."""
    import llvmlite.binding as llvm

    return llvm


@cache
def available() -> tuple[Isa, ...]:
    """Return the instruction sets that run here, widest first; GENERIC always does."""
    return tuple(isa for isa in ISAS if isa.needs <= cpu_features())


def best() -> Isa:
    """Return the widest instruction set that runs here."""
    return available()[0]


def target_machine(isa: Isa) -> llvm.TargetMachine:
    """Return the code generator for `isa`: tuned for this CPU where `isa` is its best."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    host = isa is best() and not os.environ.get("NUMBA_CPU_NAME")
    features = llvm.get_host_cpu_features().flatten() if host else ""
    native = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
    cpu = native if isa is best() else isa.cpu
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(
        cpu=cpu, features=features, opt=3, reloc="default", codemodel="jitdefault", jit=True
    )
