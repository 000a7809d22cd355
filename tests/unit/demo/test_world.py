"""The demo's small world: nothing is shared between its splits, and everything follows from the seed."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from isthmus.demo import world


def test_the_splits_share_no_number():
    for a, b in combinations(world.SPLITS, 2):
        assert not set(world.SPLITS[a].numbers) & set(world.SPLITS[b].numbers), (a, b)
    assert sum(len(split.numbers) for split in world.SPLITS.values()) == 1000


def test_the_splits_share_no_writer_within_or_between_them():
    writers = [w for split in world.SPLITS.values() for w in (*split.image_writers, *split.cloud_writers)]
    assert len(writers) == len(set(writers)) == len(world.FORMS) - 2


def test_every_form_has_every_digit():
    _, target, writer = world._handwriting()
    for form in range(len(world.FORMS) - 1):
        counts = np.bincount(target[writer == form], minlength=10)
        assert counts.min() >= 8, (form, counts)


def test_every_position_of_every_split_sees_every_digit():
    for name, split in world.SPLITS.items():
        digits = np.array([world.digits_of(n) for n in split.numbers])
        assert all(len(set(digits[:, place])) == 10 for place in range(3)), name


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (7, "seven"),
        (13, "thirteen"),
        (42, "forty-two"),
        (100, "one hundred"),
        (305, "three hundred and five"),
        (610, "six hundred and ten"),
        (999, "nine hundred and ninety-nine"),
    ],
)
def test_numbers_in_words(number, words):
    assert world.in_words(number) == words


def test_phrasings_of_a_number():
    assert world.phrasings(305) == (
        "three hundred and five",
        "three hundred five",
        "305",
        "3 0 5",
        "3-0-5",
        "three zero five",
        "three oh five",
    )


def test_no_phrasing_means_two_numbers():
    said = [(text, n) for n in range(1000) for text in set(world.phrasings(n))]
    assert len({text for text, _ in said}) == len(said)


def test_images_follow_from_the_generator():
    numbers, writers = np.array([0, 42, 999]), world.SPLITS["test"].image_writers
    first, second = (world.draw_images(numbers, writers, np.random.default_rng(3)) for _ in range(2))
    assert first.shape == (3, 28, 72)
    assert first.dtype == np.uint8
    assert np.array_equal(first, second)
    assert first.max() > 120
    assert not np.array_equal(first, world.draw_images(numbers, writers, np.random.default_rng(4)))


def test_clouds_lie_in_the_unit_sphere_and_are_solid():
    clouds = world.draw_clouds(np.array([305, 888]), (13,), np.random.default_rng(0))
    assert clouds.shape == (2, world.POINTS, 3)
    assert clouds.dtype == np.float32
    assert np.allclose(np.linalg.norm(clouds, axis=-1).max(axis=1), 1.0, atol=1e-5)
    assert (clouds.std(axis=1) > 0.01).all()


def test_a_sound_holds_the_tones_of_its_keys():
    samples = world.dial(888, np.random.default_rng(1))
    power = np.abs(np.fft.rfft(samples)) ** 2
    frequency = np.fft.rfftfreq(len(samples), 1 / world.RATE)

    def band(center: float) -> float:
        return float(power[np.abs(frequency - center) < 25].mean())

    assert min(band(852), band(1336)) > 10 * max(band(697), band(1477))


def test_sounds_are_short_and_in_range():
    sounds = [world.dial(n, np.random.default_rng(n)) for n in range(60)]
    assert all(np.abs(s).max() <= 1 for s in sounds)
    assert 0.8 < np.mean([len(s) for s in sounds]) / world.RATE < 1.1
    assert max(len(s) for s in sounds) <= world.SECONDS * world.RATE
