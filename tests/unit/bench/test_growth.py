"""Growth is found, and noise and compaction are not taken for it."""

import random

import pytest

from bench.growth import Trend, trend

HOUR = [10.0 * number for number in range(1, 361)]


def of(values: list[float], slack: float = 0.0) -> Trend:
    """How an hour of samples went, without the first ten minutes."""
    return trend(HOUR, values, 600.0, 3_600.0, slack)


def noisy(sd: float, growth: float = 0.0, seed: int = 1) -> list[float]:
    """A hundred, with noise that is like itself a minute later, and a straight growth over the fifty minutes."""
    chance, made, noise = random.Random(seed), [], 0.0
    for time in HOUR:
        noise = 0.8 * noise + 0.6 * chance.gauss(0.0, sd)
        made.append(100.0 + noise + growth * (time - 600.0) / 3_000.0)
    return made


def teeth(period: float, growth: float = 0.0) -> list[float]:
    """Files that are added to until they are compacted to half of it."""
    return [100.0 + 100.0 * (time % period) / period + growth * (time - 600.0) / 3_000.0 for time in HOUR]


@pytest.mark.parametrize("seed", range(20))
def test_what_grows_is_found_through_noise(seed: int) -> None:
    found = of(noisy(3.0, growth=12.0, seed=seed))
    assert found.grows
    assert found.growth == pytest.approx(12.0, abs=6.0)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("sd", [0.5, 5.0, 30.0])
def test_noise_alone_does_not_grow(sd: float, seed: int) -> None:
    assert not of(noisy(sd, seed=seed)).grows


@pytest.mark.parametrize("period", [35.0, 60.0, 170.0, 300.0, 700.0, 1_100.0])
def test_saw_teeth_of_compactions_do_not_grow_and_growing_ones_do(period: float) -> None:
    assert not of(teeth(period)).grows
    assert of(teeth(period, growth=150.0)).grows


def test_a_leak_that_is_small_beside_what_is_held_passes_and_is_told() -> None:
    found = of(noisy(0.1, growth=4.0))
    assert not found.grows
    assert found.growth == pytest.approx(4.0, abs=0.5)
    assert found.bound == pytest.approx(5.0, abs=0.5)


def test_what_is_nearly_nothing_may_grow_up_to_its_slack() -> None:
    few = [time / 1_000.0 for time in HOUR]
    assert of(few).grows
    assert not of(few, slack=5.0).grows


def test_what_falls_does_not_grow() -> None:
    assert not of(noisy(1.0, growth=-30.0)).grows


def test_the_warm_up_is_left_out_and_the_sixths_are_of_the_rest() -> None:
    found = of([1_000.0 if time < 600.0 else time // 500 for time in HOUR])
    assert found.mean < 10.0
    assert len(found.parts) == 6
    assert found.parts == sorted(found.parts)
    assert found.parts[-1] == pytest.approx(6.2)  # 6 from 3,100 s to 3,500 s, then 7


def test_too_few_samples_are_no_trend() -> None:
    with pytest.raises(ValueError, match="measure for longer"):
        trend(HOUR[:100], [1.0] * 100, 600.0, 3_600.0)
