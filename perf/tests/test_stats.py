"""The statistics against samples whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lab import stats


def test_summary_of_known_samples():
    values = [10.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 90.0]
    s = stats.summarize(values)
    assert (s.count, s.mean, s.median, s.minimum) == (10, 13.6, 5.5, 1.0)
    assert s.trimmed_mean == pytest.approx((sum(values) - 1.0 - 90.0) / 8)
    assert s.mean_without_first == pytest.approx(126 / 9)
    assert s.deviation == pytest.approx(np.std(values, ddof=1))


def test_no_samples_is_an_error():
    with pytest.raises(ValueError, match="no samples"):
        stats.summarize([])


def test_interval_agrees_with_students_t_where_there_are_few_values():
    # mean 0.1, deviation 0.1, n 4: 0.1 +- 3.182 * 0.05
    values = [0.0, 0.2, 0.0, 0.2]
    interval = stats.interval_of_mean(values)
    half = 3.1824463 * np.std(values, ddof=1) / 2
    assert interval.method == "t"
    assert interval.low == pytest.approx(math.expm1(0.1 - half))
    assert interval.high == pytest.approx(math.expm1(0.1 + half))


def test_bootstrap_agrees_with_theory_for_many_normal_values():
    values = np.random.default_rng(1).normal(0.05, 0.02, size=200)
    interval = stats.interval_of_mean(values)
    half = 1.972 * values.std(ddof=1) / math.sqrt(200)
    assert interval.method == "bootstrap"
    assert math.log1p(interval.low) == pytest.approx(values.mean() - half, abs=half * 0.1)
    assert math.log1p(interval.high) == pytest.approx(values.mean() + half, abs=half * 0.1)


def test_intervals_widen_with_the_noise():
    quiet = stats.interval_of_mean([0.01, 0.02, 0.0, 0.01, 0.03, 0.02, 0.01])
    noisy = stats.interval_of_mean([value * 10 - 0.1 for value in (0.01, 0.02, 0.0, 0.01, 0.03, 0.02, 0.01)])
    assert noisy.high - noisy.low > 5 * (quiet.high - quiet.low)


def test_one_value_concludes_nothing():
    assert stats.interval_of_mean([-0.5]).verdict == "inconclusive"


def test_values_without_variation():
    assert stats.interval_of_mean([0.0, 0.0, 0.0]).verdict == "inconclusive"
    assert stats.interval_of_mean([math.log(0.5)] * 3).verdict == "faster"


def _rounds(rng: np.random.Generator, centre: float, rounds: int = 6, samples: int = 10) -> list[list[float]]:
    """Samples as a machine gives them: processes differ by 3%, samples of a process by 1%."""
    return [list(centre * math.exp(rng.normal(0, 0.03)) * np.exp(rng.normal(0, 0.01, samples))) for _ in range(rounds)]


def test_a_thing_against_itself_is_inconclusive_as_often_as_promised():
    rng = np.random.default_rng(7)
    wrong = sum(stats.deltas(_rounds(rng, 1.0), _rounds(rng, 1.0))["paired"].verdict != "inconclusive" for _ in range(40))
    # 95% intervals: 2 expected; the samples are seeded, so the answer is always the same.
    assert wrong <= 4


def test_samples_pooled_over_processes_would_have_misled():
    """Why rounds are the unit: the same data, taken as independent samples, find a difference where there is none."""
    rng = np.random.default_rng(7)
    wrong = 0
    for _ in range(60):
        base, candidate = _rounds(rng, 1.0, rounds=1), _rounds(rng, 1.0, rounds=1)
        wrong += stats.deltas(base, candidate)["paired"].verdict != "inconclusive"
    assert wrong > 30


@pytest.mark.parametrize(("factor", "verdict"), [(0.8, "faster"), (1.25, "slower")])
def test_a_real_difference_is_found(factor: float, verdict: str):
    rng = np.random.default_rng(3)
    found = stats.deltas(_rounds(rng, 1.0), _rounds(rng, factor))
    for name in ("paired", "mean", "median", "trimmed mean", "minimum", "without the first"):
        assert found[name].verdict == verdict, name
        assert found[name].change == pytest.approx(factor - 1, abs=0.06)
        low, high = found[name].speedup_interval
        assert low < 1 / factor < high or abs(found[name].speedup * factor - 1) < 0.06


def test_drift_that_hits_both_modes_does_not_make_a_difference():
    drift = [1 + 0.5 * i / 10 for i in range(10)]
    base = [[d * (1 + 0.001 * r) for d in drift] for r in range(6)]
    candidate = [[d * (1 + 0.001 * (5 - r)) for d in drift] for r in range(6)]
    paired = stats.deltas(base, candidate)["paired"]
    assert abs(paired.change) < 1e-3
    assert paired.verdict == "inconclusive"


def test_a_slow_first_sample_shows_in_the_mean_and_not_without_it():
    rng = np.random.default_rng(5)
    base = _rounds(rng, 1.0, samples=6)
    candidate = [[values[0] * 5, *values[1:]] for values in base]
    found = stats.deltas(base, candidate)
    assert found["mean"].verdict == "slower"
    assert found["without the first"].verdict == "inconclusive"


def test_geometric_mean_of_known_ratios():
    found = stats.geometric_mean({"a": [math.log(0.5)] * 6, "b": [math.log(2.0)] * 6, "c": [math.log(0.25)] * 6})
    assert found.speedup == pytest.approx((2 * 0.5 * 4) ** (1 / 3))
    assert found.verdict == "faster"


def test_geometric_mean_interval_covers_its_centre():
    rng = np.random.default_rng(2)
    found = stats.geometric_mean({str(i): list(rng.normal(0.0, 0.05, 6)) for i in range(10)})
    assert found.interval.low < found.change < found.interval.high
    assert found.verdict == "inconclusive"


def test_rounds_must_match():
    with pytest.raises(ValueError, match="rounds differ"):
        stats.deltas([[1.0]], [[1.0], [1.0]])


def test_drifting_samples_are_noticed():
    assert stats.drifting([10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 4.0])
    assert not stats.drifting([5.0, 5.1, 4.9, 5.0, 5.05, 4.95, 5.0, 5.1])
    assert not stats.drifting([5.0, 1.0])
