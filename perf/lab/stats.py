"""The lab's statistics: summaries of samples, and deltas with confidence intervals.

The unit of evidence is the *round*: one fresh process per mode, started together, sampled in turn. Samples of one
process agree with each other far better than with those of the next process (address layout, hash order, what a
compiler happened to see first), so an interval over samples alone would be too narrow and would find differences
between a thing and itself. Intervals are therefore taken over rounds.

Deltas are computed on logarithms, so that a halving and a doubling weigh the same, and are given as relative change of
time: -0.10 is 10% less time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

#: Share cut off at each end of the trimmed mean.
TRIM = 0.1
CONFIDENCE = 0.95
RESAMPLES = 9999
#: The resampling is seeded: the same samples give the same interval.
SEED = 20140314

Verdict = Literal["faster", "slower", "inconclusive"]


def _scipy():
    """scipy.stats, loaded when it is needed: it takes longer to load than most commands to run."""
    from scipy import stats

    return stats


@dataclass(frozen=True, slots=True)
class Summary:
    """Location of a set of times, in the unit of the samples."""

    count: int
    mean: float
    median: float
    trimmed_mean: float
    minimum: float
    #: The mean of all but the first sample; equal to `mean` where there is only one.
    mean_without_first: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval of a relative change, and how it was taken."""

    low: float
    high: float
    confidence: float
    #: `bootstrap` over rounds; `t` where there are too few rounds for a bootstrap to reach the confidence;
    #: `within one process` where there is one round: then it says nothing about other processes.
    method: str

    @property
    def verdict(self) -> Verdict:
        """What may be concluded: nothing, if the interval holds zero."""
        if self.high < 0:
            return "faster"
        if self.low > 0:
            return "slower"
        return "inconclusive"


@dataclass(frozen=True, slots=True)
class Delta:
    """Relative change of time from a base to a candidate, by one statistic."""

    statistic: str
    change: float
    interval: Interval

    @property
    def verdict(self) -> Verdict:
        """`faster`, `slower`, or `inconclusive` when the interval crosses zero."""
        return self.interval.verdict

    @property
    def speedup(self) -> float:
        """Base time over candidate time."""
        return 1 / (1 + self.change)

    @property
    def speedup_interval(self) -> tuple[float, float]:
        """The interval, as speed-ups, low to high."""
        return 1 / (1 + self.interval.high), 1 / (1 + self.interval.low)

    def __str__(self) -> str:
        low, high = self.interval.low, self.interval.high
        return f"{self.change:+.1%} [{low:+.1%}, {high:+.1%}] {self.verdict}"


def summarize(samples: Sequence[float]) -> Summary:
    """Describe samples in the order they were taken."""
    values = np.asarray(samples, dtype=float)
    if values.size == 0:
        raise ValueError("no samples")
    rest = values[1:] if values.size > 1 else values
    return Summary(
        count=int(values.size),
        mean=float(values.mean()),
        median=float(np.median(values)),
        trimmed_mean=float(_scipy().trim_mean(values, TRIM)),
        minimum=float(values.min()),
        mean_without_first=float(rest.mean()),
        deviation=float(values.std(ddof=1)) if values.size > 1 else 0.0,
    )


def interval_of_mean(changes: Sequence[float], confidence: float = CONFIDENCE, method: str = "") -> Interval:
    """Confidence interval of the mean of log-changes, given back as relative changes.

    Bootstrap percentiles, widened for small numbers (the percentile of a bootstrap of n values is too narrow by
    about the factor between normal and t, times sqrt(n / (n - 1))). With so few values that all of them on one side
    of zero is likelier than the confidence allows, no resampling of them can be trusted: then Student's t.
    """
    values = np.asarray(changes, dtype=float)
    count = values.size
    if count < 2:
        return Interval(-1.0, math.inf, confidence, method or "one value: no interval")
    centre, error = float(values.mean()), float(values.std(ddof=1) / math.sqrt(count))
    if error == 0.0:
        return Interval(math.expm1(centre), math.expm1(centre), confidence, method or "no variation")
    alpha = 1 - confidence
    if 2 * 0.5**count > alpha:
        low, high = _scipy().t.interval(confidence, count - 1, loc=centre, scale=error)
        return Interval(math.expm1(low), math.expm1(high), confidence, method or "t")
    widened = _scipy().norm.cdf(math.sqrt(count / (count - 1)) * _scipy().t.ppf(alpha / 2, count - 1))
    result = _scipy().bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, confidence_level=1 - 2 * float(widened), method="percentile", rng=np.random.default_rng(SEED)
    )
    low, high = result.confidence_interval
    return Interval(math.expm1(float(low)), math.expm1(float(high)), confidence, method or "bootstrap")


#: The statistics that deltas are given for, by name. `paired` is the headline.
STATISTICS = {
    "mean": np.mean,
    "median": np.median,
    "trimmed mean": lambda values: _scipy().trim_mean(values, TRIM),
    "minimum": np.min,
}


def deltas(base: Sequence[Sequence[float]], candidate: Sequence[Sequence[float]], confidence: float = CONFIDENCE) -> dict[str, Delta]:
    """Deltas of `candidate` against `base`; each is one sequence of samples per round, both in the same order.

    `paired`: the median, over sample pairs taken next to each other, of their log-ratio. `mean`, `median`, `trimmed
    mean`, `minimum`: of each process's samples. `without the first`: the mean without each process's first sample.
    """
    if len(base) != len(candidate) or not base:
        raise ValueError(f"rounds differ: {len(base)} and {len(candidate)}")
    pairs = [(np.log(np.asarray(b, dtype=float)), np.log(np.asarray(c, dtype=float))) for b, c in zip(base, candidate, strict=True)]
    if len(pairs) == 1:
        return _within_one_process(pairs[0], confidence)
    per_round = {"paired": [float(np.median(c[: len(b)] - b[: len(c)])) for b, c in pairs]}
    for name, statistic in STATISTICS.items():
        per_round[name] = [_log_ratio(b, c, statistic) for b, c in pairs]
    per_round["without the first"] = [_log_ratio(b[1:], c[1:], np.mean) for b, c in pairs if len(b) > 1 and len(c) > 1]
    return {name: _delta(name, changes, confidence) for name, changes in per_round.items() if changes}


def _within_one_process(pair: tuple[np.ndarray, np.ndarray], confidence: float) -> dict[str, Delta]:
    base, candidate = pair
    least = min(len(base), len(candidate))
    changes = candidate[:least] - base[:least]
    method = "within one process"
    found = {"paired": _delta("paired", changes, confidence, method)}
    if least > 2:
        found["without the first"] = _delta("without the first", changes[1:], confidence, method)
    return found


def _log_ratio(base: np.ndarray, candidate: np.ndarray, statistic) -> float:
    return math.log(statistic(np.exp(candidate)) / statistic(np.exp(base)))


def _delta(name: str, changes: Sequence[float], confidence: float, method: str = "") -> Delta:
    return Delta(name, math.expm1(float(np.mean(changes))), interval_of_mean(changes, confidence, method))


def geometric_mean(changes: Mapping[str, Sequence[float]], confidence: float = CONFIDENCE) -> Delta:
    """Geometric mean of the relative change over benchmarks, each given as its log-changes per round.

    The interval resamples rounds within each benchmark; the set of benchmarks is taken as given.
    """
    groups = [np.asarray(values, dtype=float) for values in changes.values()]
    if not groups:
        raise ValueError("no benchmarks")
    centre = float(np.mean([group.mean() for group in groups]))
    rng = np.random.default_rng(SEED)
    total = np.zeros(RESAMPLES)
    for group in groups:
        count = len(group)
        if count < 2:
            total += group.mean()
            continue
        picks = rng.integers(0, count, size=(RESAMPLES, count))
        # Resampling n values understates their variance by (n - 1) / n.
        total += group.mean() + (group[picks].mean(axis=1) - group.mean()) * math.sqrt(count / (count - 1))
    low, high = np.quantile(total / len(groups), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Delta("geometric mean", math.expm1(centre), Interval(math.expm1(float(low)), math.expm1(float(high)), confidence, "bootstrap"))


def round_changes(base: Sequence[Sequence[float]], candidate: Sequence[Sequence[float]]) -> list[float]:
    """Per round, the log-change of the median, for `geometric_mean`."""
    return [math.log(float(np.median(c)) / float(np.median(b))) for b, c in zip(base, candidate, strict=True)]


def drifting(samples: Sequence[float], threshold: float = 0.05) -> bool:
    """Whether samples still fall or rise: their halves' medians differ by more than `threshold`, and the trend is real."""
    if len(samples) < 6:
        return False
    half = len(samples) // 2
    before, after = float(np.median(samples[:half])), float(np.median(samples[half:]))
    trend = _scipy().kendalltau(range(len(samples)), samples)
    return bool(abs(after / before - 1) > threshold and trend.pvalue < 0.05)
