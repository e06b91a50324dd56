"""Whether a small plan runs alone or with helpers: what was faster lately decides.

How much a step costs that two cores share depends on what lies between them: of a virtual
machine they may be neighbours now and on distant parts of the processor a second later, and
the system does not tell. Results are the same bits either way.
"""

ALONE, SHARED = 0, 1
# Runs from one trial of the slower way to the next, and of a trial: if it takes twice as long,
# trials cost 3 %.
PERIOD, TRIAL = 256, 8
COUNTED = TRIAL - 1  # runs whose median time is taken: a few may meet an interrupt


class Pace:
    """The choice for one workspace."""

    def __init__(self) -> None:
        self._faster = ALONE
        self._seconds = [0.0, 0.0]  # medians of late, 0 while unknown
        self._way = ALONE  # of the last run
        self._late: list[float] = []  # seconds of the runs since
        self._phase = PERIOD - 1

    def choose(self) -> int:
        """Return how to run next: the faster way, or now and then the other one."""
        self._phase = (self._phase + 1) % PERIOD
        return 1 - self._faster if self._phase < TRIAL else self._faster

    def note(self, way: int, seconds: float) -> None:
        """Take the time of a run into account.

        The first one after another way finds the tensors in the caches of other cores, or the
        helpers asleep: it is not counted.
        """
        late = self._late
        if way != self._way:
            self._way = way
            late.clear()
            return
        late.append(seconds)
        if len(late) == COUNTED:
            late.sort()
            self._seconds[way] = late[COUNTED // 2]
            late.clear()
            alone, shared = self._seconds
            self._faster = SHARED if shared < alone else ALONE
