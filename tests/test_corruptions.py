"""Corruptions of the digits: each does what its name says, within the range of pixels."""

import math

import jax
import numpy as np
import pytest

from ntkbayes.datasets import CORRUPTIONS, Dataset, Scaling, corrupt, load
from ntkbayes.errors import ConfigurationError, DataError, UnknownNameError

KEY = jax.random.key(0)
SEVERITIES = range(1, 6)


@pytest.fixture(scope="module")
def digits():
    return load("digits").take(np.arange(100))


def images_of(data):
    return data.features.reshape(-1, 8, 8)


def dataset_of(images):
    """Images, repeated 50 times, as points of two classes."""
    pixels = np.tile(np.asarray(images, float).reshape(1, 64), (50, 1))
    return Dataset(pixels, np.arange(50) % 2)


def blob(row=3.5, column=3.5, tall=1.0, wide=1.0):
    place = np.arange(8)
    rows = np.exp(-(((place - row) / tall) ** 2) / 2)
    return 16 * np.outer(rows, np.exp(-(((place - column) / wide) ** 2) / 2))


def moments_of(image):
    """Mean place and covariance of (row, column) under the image as a density."""
    places = np.stack(np.indices((8, 8)), axis=-1).reshape(-1, 2)
    mean = np.average(places, axis=0, weights=image.ravel())
    return mean, np.cov(places.T, aweights=image.ravel(), ddof=0)


# What all have in common


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corrupted_digits_keep_everything_but_their_pixels(digits, name):
    found = corrupt(digits, name, 3, KEY)
    assert found.features.min() >= 0
    assert found.features.max() <= 16
    np.testing.assert_array_equal(found.targets, digits.targets)
    assert found.class_names == digits.class_names
    assert found.feature_names == digits.feature_names
    assert found.name == f"digits ({name} 3)"
    changed = np.any(found.features != digits.features, axis=1)
    assert changed.mean() > 0.9


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruption_grows_with_severity(digits, name):
    size = [
        np.abs(corrupt(digits, name, s, KEY).features - digits.features).mean() for s in SEVERITIES
    ]
    assert (np.diff(size) > 0.05).all()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruption_is_a_function_of_the_key(digits, name):
    first, again, other = (
        corrupt(digits, name, 3, key).features for key in (KEY, KEY, jax.random.key(1))
    )
    np.testing.assert_array_equal(first, again)
    is_random = name not in ("blur", "contrast")
    assert np.any(first != other) == is_random


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruption_commutes_with_standardising(digits, name):
    scaling = Scaling(digits.features.mean(0), digits.features.std(0) + 0.1)
    found = corrupt(digits.rescaled(scaling), name, 4, KEY)
    assert found.scaling is scaling
    raw = corrupt(digits, name, 4, KEY)
    assert raw.scaling is None
    np.testing.assert_allclose(found.features, scaling(raw.features), atol=1e-10)


# What each does


@pytest.mark.parametrize(("severity", "deviation"), [(1, 1), (2, 2), (3, 3)])
def test_gaussian_noise_has_its_deviation(severity, deviation):
    grey = dataset_of(np.full((8, 8), 8.0))
    noise = corrupt(grey, "gaussian_noise", severity, KEY).features - 8
    # Pixels saturate at 8 / deviation standard deviations: the variance that is left.
    c = 8 / deviation
    tail = math.erfc(c / math.sqrt(2))
    density = math.exp(-(c**2) / 2) / math.sqrt(2 * math.pi)
    variance = deviation**2 * ((1 - tail) - 2 * c * density + c**2 * tail)
    assert np.mean(noise**2) == pytest.approx(variance, rel=4 * math.sqrt(2 / noise.size))
    assert abs(noise.mean()) < 4 * deviation / math.sqrt(noise.size)


def test_salt_and_pepper_hits_its_share_of_pixels_half_with_each():
    found = corrupt(dataset_of(np.full((8, 8), 8.0)), "salt_and_pepper", 4, KEY).features
    salt, pepper = np.mean(found == 16), np.mean(found == 0)
    assert salt + pepper + np.mean(found == 8) == pytest.approx(1)
    error = math.sqrt(0.1 * 0.9 / found.size)
    assert salt == pytest.approx(0.1, abs=4 * error)
    assert pepper == pytest.approx(0.1, abs=4 * error)


def test_noise_of_one_key_is_nested_over_severities(digits):
    grey = dataset_of(np.full((8, 8), 8.0))
    mild, strong = (corrupt(grey, "salt_and_pepper", s, KEY).features for s in (2, 5))
    hit = mild != 8
    np.testing.assert_array_equal(mild[hit], strong[hit])


def test_blur_spreads_by_its_variance():
    before = blob(tall=0.6, wide=0.6)
    after = images_of(corrupt(dataset_of(before), "blur", 2, KEY))[0]
    centre, spread = moments_of(before)
    blurred, wider = moments_of(after)
    np.testing.assert_allclose(blurred, centre, atol=1e-12)
    np.testing.assert_allclose(np.diag(wider - spread), 0.36, rtol=0.05)


def test_rotation_turns_a_bar_by_its_angle_to_either_side():
    found = images_of(corrupt(dataset_of(blob(tall=1.4, wide=0.6)), "rotation", 3, KEY))
    angles = []
    for image in found:
        mean, spread = moments_of(image)
        np.testing.assert_allclose(mean, 3.5, atol=1e-10)
        axis = np.linalg.eigh(spread)[1][:, 1]
        angles.append(np.degrees(np.arctan(axis[1] / axis[0])))
    np.testing.assert_allclose(np.abs(angles), 30, atol=1.5)
    assert np.mean(np.sign(angles)) == pytest.approx(0, abs=4 / math.sqrt(50))


def test_translation_moves_by_its_pixels_in_four_directions():
    image = np.zeros((8, 8))
    image[4, 4], image[4, 5] = 16, 5
    found = images_of(corrupt(dataset_of(image), "translation", 2, KEY))
    moves = [
        (down, right)
        for shown in found
        for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1))
        if np.allclose(shown, np.roll(image, (down, right), (0, 1)), atol=1e-12)
    ]
    assert len(moves) == 50
    assert len(set(moves)) == 4
    half = images_of(corrupt(dataset_of(image), "translation", 1, KEY))[0]
    assert np.linalg.norm(moments_of(half)[0] - moments_of(image)[0]) == pytest.approx(0.5)


def test_what_leaves_the_image_does_not_come_back():
    image = np.zeros((8, 8))
    image[0] = 16
    found = images_of(corrupt(dataset_of(image), "translation", 5, KEY))
    sums = np.round(found.sum(axis=(1, 2)) / 16, 9)
    # Up it is lost, down all of it stays, sideways three pixels go.
    assert set(sums.tolist()) == {0, 5, 8}


def test_contrast_shrinks_deviations_from_the_mean(digits):
    found, before = images_of(corrupt(digits, "contrast", 2, KEY)), images_of(digits)
    mean = before.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(found - mean, (before - mean) / 2, atol=1e-12)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_occlusion_blanks_a_square_anywhere(severity):
    found = images_of(corrupt(dataset_of(np.full((8, 8), 9.0)), "occlusion", severity, KEY))
    side, corners = severity + 1, set()
    for image in found:
        rows, columns = np.nonzero(image == 0)
        assert len(rows) == side**2
        assert (np.ptp(rows), np.ptp(columns)) == (side - 1, side - 1)
        assert (image[image != 0] == 9).all()
        corners.add((rows.min(), columns.min()))
    lowest, highest = np.min(list(corners), axis=0), np.max(list(corners), axis=0)
    np.testing.assert_array_equal([lowest, highest], [[0, 0], [8 - side, 8 - side]])


# Refusals


def test_unknown_corruptions_and_severities_are_refused(digits):
    with pytest.raises(UnknownNameError, match="unknown corruption 'fog'; known are: gaussian_n"):
        corrupt(digits, "fog", 1, KEY)
    for severity in (0, 6, -1):
        with pytest.raises(ConfigurationError, match=f"severity must be 1 to 5, got {severity}"):
            corrupt(digits, "blur", severity, KEY)


def test_other_images_are_refused(digits):
    with pytest.raises(DataError, match="8 × 8 pixels, got 3 features"):
        corrupt(Dataset(np.ones((4, 3)), [0, 1, 0, 1]), "blur", 1, KEY)
    with pytest.raises(DataError, match="pixels run from 0 to 32"):
        corrupt(Dataset(2 * digits.features, digits.labels), "blur", 1, KEY)
    with pytest.raises(DataError, match="pixels run from -1 to 15"):
        corrupt(Dataset(digits.features - 1, digits.labels), "blur", 1, KEY)
