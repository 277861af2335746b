"""Generators: the default one, seeds drawn from them, and states that can be saved and restored."""

import json

import numpy as np
import pytest

import gpulstm as gl
from gpulstm import random
from gpulstm.errors import DTypeError, FormatError, ShapeError

KINDS = [np.random.PCG64, np.random.PCG64DXSM, np.random.Philox, np.random.MT19937, np.random.SFC64]


def test_manual_seed_starts_the_default_generator_anew():
    generator = gl.manual_seed(7)
    first = [random.draw_seed(), random.default_generator().random(), generator.random()]
    gl.manual_seed(7)
    second = [random.draw_seed(), random.default_generator().random(), random.default_generator().random()]
    gl.manual_seed(8)
    third = [random.draw_seed()]
    assert first == second and first[0] != third[0]
    assert np.random.Generator(np.random.PCG64(7)).integers(2**64, dtype=np.uint64) == first[0]
    assert gl.manual_seed(0).random() == np.random.default_rng(0).random()
    for seed in (-1, 1.5, "7", True):
        with pytest.raises(ShapeError, match=f"seed: expected a whole number from 0 up, got {seed!r}"):
            gl.manual_seed(seed)


@pytest.mark.parametrize("generator", [0, 1, np.random.RandomState(0)])
def test_a_seed_is_no_generator(generator):
    for make in (lambda: gl.LSTM(2, 3, generator=generator, device="cpu"), lambda: random.draw_seed(generator)):
        with pytest.raises(DTypeError, match=r"generator: expected a numpy.random.Generator or None"):
            make()


def test_without_a_seed_runs_differ(monkeypatch):
    drawn = set()
    for _ in range(3):
        monkeypatch.setattr(random, "_default", None)
        drawn.add(random.draw_seed())
        assert random.default_generator() is random.default_generator()
    assert len(drawn) == 3


def test_seeds_fill_64_bits():
    seeds = [random.draw_seed(np.random.default_rng(k)) for k in range(200)]
    assert all(0 <= seed < 2**64 for seed in seeds) and len(set(seeds)) == 200
    for bit in range(64):
        assert 0 < sum(seed >> bit & 1 for seed in seeds) < 200


@pytest.mark.parametrize("kind", KINDS)
def test_states_go_through_json(kind):
    generator = np.random.Generator(kind(3))
    generator.integers(10, dtype=np.int32)  # half of a word is left over, and belongs to the state
    state = json.loads(json.dumps(random.generator_state(generator)))
    want = [generator.integers(10, dtype=np.int32), *generator.random(5), random.draw_seed(generator)]
    other = np.random.Generator(kind(4))
    random.set_generator_state(other, state)
    assert [other.integers(10, dtype=np.int32), *other.random(5), random.draw_seed(other)] == want
    assert other.random() == generator.random()


@pytest.mark.parametrize(
    "state",
    [
        {},
        None,
        {"bit_generator": "MT19937"},
        {"bit_generator": "PCG64"},
        {"bit_generator": "PCG64", "state": {"state": "x", "inc": 1}, "has_uint32": 0, "uinteger": 0},
        {"bit_generator": "PCG64", "state": {"state": -1, "inc": 1}, "has_uint32": 0, "uinteger": 0},
        {"bit_generator": "PCG64", "state": [1, 2], "has_uint32": 0, "uinteger": 0},
    ],
    ids=str,
)
def test_what_is_no_state_is_refused_and_changes_nothing(state):
    generator, twin = np.random.default_rng(1), np.random.default_rng(1)
    with pytest.raises(FormatError, match="generator state: expected"):
        random.set_generator_state(generator, state)
    assert generator.random() == twin.random()


def test_a_state_of_another_kind_is_named():
    generator = np.random.default_rng(1)
    for state, got in (({}, "dict"), (3, "int"), ({"bit_generator": "MT19937"}, "MT19937")):
        with pytest.raises(FormatError, match=f"expected that of a PCG64, got {got}"):
            random.set_generator_state(generator, state)
