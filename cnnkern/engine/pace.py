"""Whether a small plan runs alone or with helpers: what was faster lately decides.

How much a step costs that two cores share depends on what lies between them: of a virtual
machine they may be neighbours now and on distant parts of the processor a second later, and
the system does not tell. Results are the same bits either way.
"""

ALONE, SHARED = 0, 1
# Runs from one trial of the slower way to the next; a trial that takes twice as long costs 2 %.
PERIOD = 128
# The first run of a trial, and the first one after it, find the tensors in the caches of other
# cores: they are not counted.
TRIAL = 2
WEIGHT = 0.25  # of the last run in the mean


class Pace:
    """The choice for one workspace."""

    def __init__(self) -> None:
        self._seconds = [0.0, 0.0]  # means of late, 0 while unknown
        self._phase = PERIOD - 1

    def choose(self) -> int:
        """Return how to run next: the faster way, or now and then the other one."""
        self._phase = (self._phase + 1) % PERIOD
        alone, shared = self._seconds
        faster = SHARED if shared < alone else ALONE
        return 1 - faster if self._phase < TRIAL else faster

    def note(self, way: int, seconds: float) -> None:
        """Take the time of the run into account that `choose` asked for."""
        if self._phase in (0, TRIAL):
            return
        mean = self._seconds[way]
        self._seconds[way] = mean + WEIGHT * (seconds - mean) if mean else seconds
