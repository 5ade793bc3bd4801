"""Localisation figures against loops, scikit-learn and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import jaccard_score

from btkeras.metrics import localization as local


@pytest.fixture
def maps() -> np.ndarray:
    return np.random.default_rng(0).random((6, 9, 7))


@pytest.fixture
def regions() -> np.ndarray:
    return np.random.default_rng(1).random((6, 9, 7)) < 0.3


def test_a_map_points_at_its_maximum(regions: np.ndarray) -> None:
    maps = np.zeros((2, 4, 5))
    maps[0, 1, 2] = maps[1, 3, 4] = 1
    region = np.zeros((2, 4, 5), bool)
    region[:, 1, 2] = True
    assert local.pointing_game(maps, region).tolist() == [True, False]
    assert local.points(maps).tolist() == [[1, 2], [3, 4]]


def test_a_map_without_a_maximum_points_nowhere() -> None:
    everywhere = np.ones((2, 3, 3), bool)
    assert local.pointing_game(np.stack([np.zeros((3, 3)), np.ones((3, 3))]), everywhere).tolist() == [False, False]


def test_energy_is_the_part_of_the_sum_in_the_region(maps: np.ndarray, regions: np.ndarray) -> None:
    for one, region, found in zip(maps, regions, local.energy(maps, regions), strict=True):
        inside = sum(one[i, j] for i in range(9) for j in range(7) if region[i, j])
        assert found == pytest.approx(inside / one.sum())


def test_iou_equals_the_jaccard_score_of_the_thresholded_map(maps: np.ndarray, regions: np.ndarray) -> None:
    for threshold in (0.2, 0.5, 0.9):
        expected = [
            jaccard_score(region.ravel(), (one >= threshold * one.max()).ravel())
            for one, region in zip(maps, regions, strict=True)
        ]
        np.testing.assert_allclose(local.iou(maps, regions, threshold), expected)


def test_iou_of_same_area_takes_the_highest_pixels(maps: np.ndarray, regions: np.ndarray) -> None:
    for one, region, found in zip(maps, regions, local.iou_of_same_area(maps, regions), strict=True):
        lowest = np.sort(one, axis=None)[-region.sum()]
        assert found == pytest.approx(jaccard_score(region.ravel(), (one >= lowest).ravel()))
    np.testing.assert_array_equal(local.iou_of_same_area(regions.astype(float), regions), 1)


def test_a_map_of_zeros_scores_nothing(regions: np.ndarray) -> None:
    zeros = np.zeros(regions.shape)
    for figure in (local.energy, local.iou, local.iou_of_same_area, local.pointing_game):
        assert not figure(zeros, regions).any()


def test_rank_correlation_is_spearmans(maps: np.ndarray) -> None:
    other = np.round(4 * maps**2 + np.random.default_rng(2).random(maps.shape))
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(maps, other, strict=True)]
    np.testing.assert_allclose(local.rank_correlation(maps, other), expected)
    assert np.isnan(local.rank_correlation(maps[:1], np.ones((1, 9, 7)))).all()


def test_a_box_is_the_pixels_whose_centers_it_holds() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        top, bottom = sorted(rng.uniform(-0.1, 1.1, 2))
        left, right = sorted(rng.uniform(-0.1, 1.1, 2))
        expected = [
            [top <= (i + 0.5) / 12 <= bottom and left <= (j + 0.5) / 10 <= right for j in range(10)] for i in range(12)
        ]
        if np.any(expected):
            np.testing.assert_array_equal(local.box_region((top, left, bottom, right), (12, 10)), expected)


def test_a_box_smaller_than_a_pixel_is_the_pixel_around_it() -> None:
    region = local.box_region((0.51, 0.06, 0.52, 0.07), (10, 10))
    assert np.argwhere(region).tolist() == [[5, 0]]


def test_the_center_of_a_region_is_that_of_its_pixels() -> None:
    assert local.center(local.box_region((0.0, 0.5, 0.5, 1.0), (4, 4))) == (0.5, 2.5)
