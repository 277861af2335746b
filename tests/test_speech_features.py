"""What the speech lab is made of: features, WAV files, resampling, decoding, error rates, folders and zips."""

import gzip
import itertools
import struct
import wave as standard
import zipfile

import numpy as np
import pytest

from gpulstm.errors import DTypeError, FormatError, ShapeError
from gpulstm.labs.speech import character_error_rate, log_mel, read_wave, resample, word_error_rate
from gpulstm.labs.speech.decode import beam_search, greedy
from gpulstm.labs.speech.features import frames_in, hertz, mel, mel_filters, scaled, stacked
from gpulstm.labs.speech.rates import edit_distance
from gpulstm.labs.speech.recordings import read_recordings
from gpulstm.labs.speech.tones import tone_strings
from gpulstm.labs.speech.utterances import at_speed
from gpulstm.labs.speech.wave import wave_in

RATE = 8000


def tone(hz, seconds=0.5, rate=RATE):
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


# -- features ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "cuda"], indirect=True)
def test_features_are_those_of_the_definition(device, rng):
    """Every frame by a Fourier sum written out, without an FFT."""
    wave = rng.normal(size=1000)
    got = device.to_numpy(log_mel(device.asarray(wave), RATE, 12, 100, 3500))
    x = wave / np.sqrt((wave**2).mean())
    y = x - 0.97 * np.concatenate([[0], x[:-1]])
    window = np.hamming(200)
    n, k = np.arange(200), np.arange(129)[:, None]
    corners = hertz(np.linspace(mel(100), mel(3500), 14))
    logs = []
    for start in range(0, 801, 80):
        power = np.abs((y[start : start + 200] * window * np.exp(-2j * np.pi * k * n / 256)).sum(axis=1)) ** 2
        row = []
        for left, middle, right in zip(corners, corners[1:], corners[2:], strict=False):
            row.append(power @ np.interp(np.arange(129) * RATE / 256, [left, middle, right], [0, 1, 0]))
        logs.append(np.log(np.array(row) + 1e-3))
    want = (logs - np.mean(logs, axis=0)) / 2.5
    assert got.shape == (11, 12)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


def test_a_tone_stands_in_its_band():
    centres = hertz(np.linspace(mel(60), mel(3900), 22))[1:-1]
    for band in (3, 9, 15, 19):
        both = np.concatenate([tone(centres[band]), 0.01 * tone(centres[0])])  # the mean of a band is taken out
        frames = log_mel(both, RATE)
        assert (frames[5] - frames[-5]).argmax() == band
        moved = log_mel(both, RATE, warp=1.3)
        assert (moved[5] - moved[-5]).argmax() < band


def test_loudness_makes_no_difference_and_silence_is_silent(rng):
    wave = rng.normal(size=3000)
    np.testing.assert_allclose(log_mel(wave, RATE), log_mel(1e-4 * wave, RATE), rtol=1e-6, atol=1e-9)
    assert (log_mel(np.zeros(3000), RATE) == 0).all()
    assert (scaled(wave) ** 2).mean() == pytest.approx(1)
    assert abs(log_mel(wave, RATE).mean(axis=0)).max() < 1e-12
    assert log_mel(wave.astype(np.float32), RATE).dtype == np.float32
    np.testing.assert_allclose(log_mel(wave.astype(np.float32), RATE), log_mel(wave, RATE), atol=1e-3)


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (199, 1), (200, 1), (279, 1), (280, 2), (8000, 98)])
def test_frames_are_counted(samples, frames):
    assert frames_in(samples, RATE) == frames == len(log_mel(np.ones(samples), RATE))


def test_filters():
    filters = mel_filters(20, 256, RATE)
    assert filters.shape == (20, 129) and filters.max() <= 1 and (filters >= 0).all()
    total = mel_filters(20, 2**14, RATE).sum(axis=0)
    assert total[700:7000] == pytest.approx(1)  # triangles that share their corners sum to 1
    for options, words in (
        ({"bands": 200}, "bands: expected few enough"),
        ({"low": 5000}, "low, high: expected 0 <= low < high <= 4000"),
        ({"high": 4001}, "low, high"),
    ):
        with pytest.raises(ShapeError, match=words):
            mel_filters(**{"bands": 20, "size": 256, "sample_rate": RATE, **options})
    for wrong in (np.zeros(0), np.zeros((2, 100))):
        with pytest.raises(ShapeError, match="wave: expected"):
            log_mel(wrong, RATE)
    with pytest.raises(DTypeError, match="wave: expected"):
        log_mel(np.ones(900, np.int16), RATE)
    with pytest.raises(ShapeError, match="bands: expected a whole number from 1"):
        log_mel(np.ones(900), RATE, 0)


def test_stacking_keeps_every_frame():
    frames = np.arange(14.0).reshape(7, 2)
    rows = stacked(frames, 3)
    assert rows.shape == (3, 6) and (rows.reshape(-1, 2)[:7] == frames).all() and (rows.reshape(-1, 2)[7:] == 0).all()
    assert (stacked(frames, 1) == frames).all()


# -- WAV files -----------------------------------------------------------------------------------------------


def riff(samples: bytes, kind=1, channels=1, rate=RATE, bits=16, extra=b"", form=None):
    """The bytes of a WAV file."""
    if form is None:
        width = bits // 8
        form = struct.pack("<HHIIHH", kind, channels, rate, 0, channels * width % 2**16, bits)
    body = b"WAVE" + extra + b"fmt " + struct.pack("<I", len(form)) + form
    body += b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body


VALUES = np.array([0, 0.5, -0.5, 0.25, -1, 0.75])


@pytest.mark.parametrize(
    ("bits", "samples"),
    [
        (8, (VALUES * 128 + 128).astype(np.uint8).tobytes()),
        (16, (VALUES * 2**15).astype("<i2").tobytes()),
        (24, b"".join(int(v * 2**23).to_bytes(3, "little", signed=True) for v in VALUES)),
        (32, (VALUES * 2**31).astype("<i4").tobytes()),
    ],
)
def test_every_width_of_samples(bits, samples, tmp_path):
    assert (wave_in(riff(samples, bits=bits), "a", RATE) == VALUES).all()
    with standard.open(str(tmp_path / "a.wav"), "wb") as file:  # as the standard library writes it
        file.setparams((2, bits // 8, RATE, 0, "NONE", ""))
        file.writeframes(samples)
    assert (read_wave(tmp_path / "a.wav", RATE) == VALUES.reshape(-1, 2).mean(axis=1)).all()


def test_floats_extensible_formats_and_other_chunks():
    samples = VALUES.astype("<f4").tobytes()
    assert (wave_in(riff(samples, kind=3, bits=32), "a", RATE) == VALUES).all()
    assert (wave_in(riff(VALUES.astype("<f8").tobytes(), kind=3, bits=64), "a", RATE) == VALUES).all()
    form = struct.pack("<HHIIHHHHIH", 0xFFFE, 1, RATE, 4 * RATE, 4, 32, 22, 32, 4, 3) + bytes(14)
    assert (wave_in(riff(samples, form=form), "a", RATE) == VALUES).all()
    listed = riff(samples, kind=3, bits=32, extra=b"LIST" + struct.pack("<I", 3) + b"abc\0")
    assert (wave_in(listed, "a", RATE) == VALUES).all()
    piped = riff(samples, kind=3, bits=32).replace(struct.pack("<I", len(samples)) + samples, b"\xff" * 4 + samples)
    assert (wave_in(piped, "a", RATE) == VALUES).all()


BROKEN = [
    (b"", "expected a WAV file, got an empty file"),
    (b"ID3 is an mp3", "expected a WAV file, got another file"),
    (riff(b"")[:30], "expected a 'fmt ' chunk of at least 16 bytes|without"),
    (riff(b""), "got one without samples"),
    (riff(b"\0" * 8)[:-3], "the file is cut short"),
    (riff(b"\0" * 8, kind=85), "format 85"),
    (riff(b"\0" * 8, bits=12), "of 12 bits"),
    (riff(b"\0" * 8, channels=0), "1 to 64 channels, got 0"),
    (riff(b"\0" * 6, channels=2), "whole frames of 2 channels"),
    (riff(b"\0" * 8, rate=0), "expected a sample rate from"),
    (riff(b"\0" * 8, rate=2**31), "expected a sample rate from"),
    (riff(np.array([np.nan], "<f4").tobytes(), kind=3, bits=32), "expected finite samples, got nan"),
    (riff(np.array([1e300], "<f8").tobytes(), kind=3, bits=64), "expected finite samples, got 1e"),
    (b"RIFF\0\0\0\0WAVEdata\4\0\0\0\0\0\0\0", "expected a 'fmt ' chunk before the samples"),
]


@pytest.mark.parametrize(("data", "words"), BROKEN)
def test_broken_files_are_named(data, words):
    with pytest.raises(FormatError, match=rf"^a\.wav: .*({words})"):
        wave_in(data, "a.wav", RATE)


def test_every_file_that_is_cut_is_read_or_refused():
    whole = riff(VALUES.astype("<f4").tobytes(), kind=3, bits=32)
    for end in range(len(whole)):
        with pytest.raises(FormatError):
            wave_in(whole[:end], "a.wav", RATE)


@pytest.mark.parametrize(
    ("rate", "new_rate"), [(44100, 8000), (48000, 8000), (8000, 16000), (11025, 8000), (8001, 8000)]
)
def test_resampling_keeps_what_both_rates_can_hold(rate, new_rate):
    """A tone below half of both rates stays itself, and one above half the new rate goes."""
    for hz in (200, 1000, 3000):
        got = resample(tone(hz, 0.3, rate), rate, new_rate)
        want = tone(hz, 0.3, new_rate)
        assert len(got) == -(-round(0.3 * rate) * new_rate // rate)
        inner = slice(100, -100)
        assert np.abs(got[: len(want)] - want[: len(got)])[inner].max() < 5e-3
    if rate > 10_000:
        assert np.abs(resample(tone(5300, 0.3, rate), rate, new_rate)[100:-100]).max() < 0.02
    constant = resample(np.ones(4000), rate, new_rate)[100:-100]
    assert constant == pytest.approx(1, abs=2e-3)


def test_resampling_in_blocks_and_at_strange_rates(monkeypatch):
    wave = np.random.default_rng(0).normal(size=3000)
    whole = resample(wave, 8000, 7999)
    monkeypatch.setattr("gpulstm.labs.speech.wave.BLOCK", 100)
    np.testing.assert_allclose(resample(wave, 8000, 7999), whole, atol=1e-12)
    np.testing.assert_allclose(resample(wave, 8000, 6000), resample(wave, 4, 3), atol=0)
    assert resample(wave, 8000, 8000) is wave
    with pytest.raises(ShapeError, match="new_rate: expected a whole number from 1"):
        resample(wave, 8000, 0)
    with pytest.raises(ShapeError, match=r"wave: expected \(N,\)"):
        resample(wave[None], 8000, 4000)


def test_another_speed_moves_a_tone():
    faster = at_speed(tone(500), 1.25)
    assert len(faster) == 3200
    assert np.abs(faster - tone(625, 0.4)).max() < 0.05


# -- decoding ------------------------------------------------------------------------------------------------


def collapsed(path, blank):
    return tuple(c for c, _ in itertools.groupby(path) if c != blank)


def by_brute_force(log_probs, blank):
    """The probability of every text: the sum over all its paths."""
    T, C = log_probs.shape
    texts = {}
    for path in itertools.product(range(C), repeat=T):
        text = collapsed(path, blank)
        texts[text] = texts.get(text, 0.0) + np.exp(log_probs[range(T), path].sum())
    return texts


@pytest.mark.parametrize("case", range(12))
def test_beam_search_finds_the_most_probable_text(case):
    rng = np.random.default_rng(case)
    T, C, blank = 1 + case % 5, 2 + case % 3, case % 2
    logits = rng.normal(size=(T, C)) * rng.choice([0.3, 2])
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    texts = by_brute_force(log_probs, blank)
    best = max(texts, key=texts.get)
    found, log_probability = beam_search(log_probs, 10_000, blank)
    assert tuple(found) == best
    assert log_probability == pytest.approx(np.log(texts[best]), rel=1e-12)
    assert tuple(greedy(log_probs, blank)) == collapsed(log_probs.argmax(axis=1), blank)
    narrow, log_probability = beam_search(log_probs, 1, blank)
    assert log_probability <= np.log(texts[tuple(narrow)]) + 1e-12


def test_beam_search_beats_the_best_path():
    """The textbook's case (Graves 2012): the best path is all blanks, the most probable text is not."""
    log_probs = np.log([[0.6, 0.4], [0.6, 0.4]])
    assert greedy(log_probs) == []
    found, log_probability = beam_search(log_probs, 4)
    assert found == [1] and log_probability == pytest.approx(np.log(0.64))


def test_repeats_need_a_blank_between():
    sure = np.log(np.full((5, 3), 1e-9))
    for t, c in enumerate([1, 1, 0, 1, 2]):
        sure[t, c] = 0
    assert greedy(sure) == beam_search(sure, 3)[0] == [1, 1, 2]
    assert greedy(sure[[0, 1, 3, 4]]) == beam_search(sure[[0, 1, 3, 4]], 3)[0] == [1, 2]
    assert greedy(sure[:0]) == beam_search(sure[:0], 3)[0] == []
    with pytest.raises(ShapeError, match="beam_width"):
        beam_search(sure, 0)
    with pytest.raises(ShapeError, match=r"log_probs: expected \(T, C\)"):
        greedy(sure[None])


# -- error rates ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("abc", "abc", 0),
     ("ab", "ba", 2), ("intention", "execution", 5), ("aaaa", "a", 3)],
)  # fmt: skip
def test_edit_distances(a, b, distance):
    assert edit_distance(a, b) == edit_distance(b, a) == distance


def test_edit_distance_is_that_of_the_recursion(rng):
    def slow(a, b):
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0]))

    for _ in range(30):
        a, b = (rng.integers(3, size=rng.integers(6)).tolist() for _ in range(2))
        assert edit_distance(a, b) == slow(a, b)


def test_rates_are_over_all_texts():
    assert word_error_rate(["one two", "x"], ["one two three", "four"]) == 2 / 4
    assert character_error_rate(["ab", ""], ["abc", "d"]) == 2 / 4
    assert word_error_rate(["a b c"], ["a"]) == 2
    with pytest.raises(ShapeError, match="expected 2 texts"):
        word_error_rate(["a"], ["a", "b"])
    with pytest.raises(ShapeError, match="at least one word"):
        word_error_rate([""], [" "])


# -- folders, zips and transcripts ---------------------------------------------------------------------------

SOUND = riff((tone(500, 0.1) * 2**14).astype("<i2").tobytes())
TABLE = "file\ttext\na.wav\tone  two\nsub/b.wav\tthree\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "d" / "sub").mkdir(parents=True)
    for name in ("a.wav", "sub/b.wav", "c.WAV"):
        (tmp_path / "d" / name).write_bytes(SOUND)
    (tmp_path / "d" / "transcripts.tsv").write_text(TABLE)
    return tmp_path / "d"


def zipped(path, files, **options):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return path


def test_a_folder_and_a_zip_say_the_same(folder, tmp_path):
    found = read_recordings(folder, None, RATE)
    assert found.names == ["a.wav", "sub/b.wav"] and found.texts == ["one two", "three"] and found.unused == 1
    assert [len(wave) for wave in found.waves] == [800, 800] and found.waves[0].dtype == np.float32
    packed = zipped(tmp_path / "d.zip", {"a.wav": SOUND, "sub/b.wav": SOUND, "transcripts.tsv": "\ufeff" + TABLE})
    before = {path for path in tmp_path.rglob("*")}
    again = read_recordings(packed, None, 16000)
    assert again.texts == found.texts and [len(wave) for wave in again.waves] == [1600, 1600]
    assert {path for path in tmp_path.rglob("*")} == before  # nothing is unpacked to the disk
    (tmp_path / "t.csv").write_text('path,text\n"a.wav","one, two"\n')
    assert read_recordings(packed, tmp_path / "t.csv", RATE).texts == ["one, two"]
    (tmp_path / "t.tsv.gz").write_bytes(gzip.compress("a.wav\tzwölf\n\n".encode("latin-1"), mtime=0))
    assert read_recordings(folder, tmp_path / "t.tsv.gz", RATE, "latin-1").texts == ["zwölf"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("a.wav one\n", "line 1: expected a file's name, a tab and its text, got 1 cells"),
        ("a.wav\tone\nb.wav\ttwo\n", "line 2: expected a file among the recordings, got 'b.wav'"),
        ("a.wav\tone\na.wav\ttwo\n", "line 2: expected each file once, got 'a.wav' again"),
        ("a.wav\tone\nsub/b.wav\t \n", "line 2: expected a text for 'sub/b.wav', got none"),
        ("../secret.wav\tone\n", "line 1: expected a file among the recordings, got '../secret.wav'"),
        ("/etc/passwd\tone\n", "line 1: expected a file among the recordings"),
        ("file\ttext\n", "expected a line for each recording, got none"),
        ("transcripts.tsv\tone\n", "transcripts.tsv: expected a WAV file"),
    ],
)
def test_faults_of_a_table_are_named_by_line(folder, tmp_path, table, words):
    (tmp_path / "secret.wav").write_bytes(SOUND)
    (folder / "transcripts.tsv").write_text(table)
    with pytest.raises(FormatError, match=words):
        read_recordings(folder, None, RATE)
    packed = zipped(tmp_path / "d.zip", {"a.wav": SOUND, "sub/b.wav": SOUND, "transcripts.tsv": table})
    with pytest.raises(FormatError, match=words):
        read_recordings(packed, None, RATE)


def test_zips_that_are_no_recordings(folder, tmp_path, monkeypatch):
    def refused(data, words):
        (tmp_path / "x.zip").write_bytes(data)
        with pytest.raises(FormatError, match=words):
            read_recordings(tmp_path / "x.zip", None, RATE)

    whole = zipped(tmp_path / "d.zip", {"a.wav": SOUND, "sub/b.wav": SOUND, "transcripts.tsv": TABLE}).read_bytes()
    refused(b"no zip", "expected a folder or a zip of WAV files")
    refused(whole[: len(whole) // 2], "expected a folder or a zip")
    refused(whole[:60] + b"\0" * 40 + whole[100:], "a.wav: expected a whole file, got a damaged one")
    refused(
        zipped(tmp_path / "e.zip", {"a.wav": SOUND}).read_bytes(), "expected transcripts.tsv or transcripts.csv in it"
    )
    text = zipped(tmp_path / "f.zip", {"a.wav": SOUND, "transcripts.tsv": b"a.wav\t\xff\n"}).read_bytes()
    refused(text, "transcripts.tsv: expected utf-8 text")
    monkeypatch.setattr("gpulstm.labs.speech.recordings.MOST_BYTES", 2**20)
    bomb = zipped(tmp_path / "g.zip", {"a.wav": b"\0" * 2**21, "sub/b.wav": SOUND, "transcripts.tsv": TABLE})
    refused(bomb.read_bytes(), "a.wav: expected at most 1 MiB, got 2,097,152 bytes unpacked")
    packed = bomb.read_bytes()
    lying = packed.replace(struct.pack("<I", 2**21), struct.pack("<I", 999))  # the size in the zip is not true
    assert lying != packed
    refused(lying, r"a\.wav: expected")


def test_recordings_that_are_too_many_are_refused(folder, monkeypatch):
    monkeypatch.setattr("gpulstm.labs.speech.recordings.MOST_MEMORY", 2 * 4 * 800)
    assert len(read_recordings(folder, None, RATE).waves) == 2
    with pytest.raises(FormatError, match="d: expected recordings of at most 6,400 bytes in memory, got more"):
        read_recordings(folder, None, 2 * RATE)


def test_a_file_that_is_too_large_is_refused(folder, monkeypatch):
    monkeypatch.setattr("gpulstm.labs.speech.wave.MOST_BYTES", 100)
    with pytest.raises(FormatError, match="expected at most"):
        read_wave(folder / "a.wav", RATE)
    with pytest.raises(OSError):
        read_wave(folder / "none.wav", RATE)


def test_generated_strings():
    waves, texts = tone_strings(20, RATE)
    again, _ = tone_strings(20, RATE)
    assert all((a == b).all() for a, b in zip(waves, again, strict=True))
    assert all(3 <= len(text) <= 7 and text.isdigit() for text in texts)
    assert len({len(wave) / len(text) for wave, text in zip(waves, texts, strict=True)}) == 20  # speeds vary
    assert {c for text in texts for c in text} == set("0123456789")
    assert waves[0].dtype == np.float32
