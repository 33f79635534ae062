"""Audio in and out: formats, headers that lie, cut files, channels, segments; library and programs."""

import io
import struct
import wave

import kaldiio
import numpy as np
import pytest
import soundfile
from helpers import golden, needs_golden, run, shell
from hypothesis import given
from hypothesis import strategies as st

from voxark.audio import cut_segment, read_audio, select_channel, write_wav
from voxark.datadir import Segment
from voxark.errors import VoxarkError

RANDOM = np.random.default_rng(5)
MONO = RANDOM.integers(-32768, 32768, 1000).astype(np.int16)
STEREO = RANDOM.integers(-32768, 32768, (1000, 2)).astype(np.int16)


def encode(samples, format, subtype, rate=16000, **settings):
    """The bytes of a file by libsndfile."""
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=format, subtype=subtype, **settings)
    return stream.getvalue()


def riff(samples, rate=16000, riff_size=None, data_size=None, before=b"", after=b"", form=None):
    """A wav file made by hand, so that its sizes can lie."""
    payload = samples.astype("<i2").tobytes()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    form = form or struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2, channels * 2, 16)
    data_size = len(payload) if data_size is None else data_size
    body = (
        b"WAVEfmt "
        + struct.pack("<I", len(form))
        + form
        + before
        + b"data"
        + struct.pack("<I", data_size)
        + payload
    )
    body += after
    return b"RIFF" + struct.pack("<I", len(body) if riff_size is None else riff_size) + body


def sphere(payload, fields, size=1024):
    """A SPHERE file made by hand."""
    text = (
        f"NIST_1A\n{size:7d}\n"
        + "".join(f"{name} {value}\n" for name, value in fields.items())
        + "end_head\n"
    )
    return text.encode().ljust(size, b" ") + payload


# ------------------------------------------------------------------------------------ wav


@pytest.mark.parametrize("samples", [MONO, STEREO, MONO[:1], MONO[:0], STEREO[:0]])
def test_16_bit_wav_there_and_back(samples):
    data = write_wav(44100, samples)
    assert data == riff(samples, 44100)
    rate, decoded = read_audio(data, "x.wav")
    assert (
        rate == 44100
        and decoded.dtype == np.int16
        and (decoded == samples).all()
        and decoded.shape == samples.shape
    )
    with wave.open(io.BytesIO(data)) as file:
        assert file.getparams()[:4] == (1 if samples.ndim == 1 else 2, 2, 44100, len(samples))


@needs_golden
def test_writing_keeps_kaldis_bytes():
    data = golden("audio/syn-noise.wav").read_bytes()
    assert write_wav(*read_audio(data, "syn-noise.wav")) == data


def test_writing_clips_and_cuts_fractions(caplog):
    data = write_wav(8000, np.array([40000.0, -40000.0, 1.9, -1.9, 32767.0, -32768.0], np.float32))
    assert read_audio(data, "x")[1].tolist() == [32767, -32768, 1, -1, 32767, -32768]
    assert "clipped 2 of 6" in caplog.text


@pytest.mark.parametrize(
    "riff_size, data_size",
    [
        (0, 0),
        (36, 0),
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0x7FFFFFFF, 0x7FFFFFDB),
        (0x7FFFF024, 0x7FFFF000),
        (0, 0x80000000),
        (0x80000024, 0x80000000),
        (0xFFFFFFFF, 0),
    ],
)
@pytest.mark.parametrize("samples", [MONO, STEREO])
def test_unknown_sizes_are_read_to_the_end(riff_size, data_size, samples):
    data = riff(samples, riff_size=riff_size, data_size=data_size)
    for tail in (b"", b"x"):  # half a sample at the end does not count
        assert (read_audio(data + tail, "x.wav")[1] == samples).all()


@pytest.mark.parametrize("subtype", ["PCM_24", "FLOAT", "ULAW"])
def test_unknown_sizes_in_other_codings(subtype):
    data = bytearray(encode(MONO, "WAV", subtype))
    expected = read_audio(bytes(data), "x.wav")[1]
    position = data.index(b"data") + 4
    payload = len(data) - position - 4
    for size in (0, 0x7FFFF000, 0xFFFFFFFF):
        data[4:8] = data[position : position + 4] = struct.pack("<I", size)
        assert (read_audio(bytes(data[: position + 4 + payload]), "x.wav")[1] == expected).all()


def test_other_chunks_are_passed_over():
    extra = b"LIST" + struct.pack("<I", 5) + b"abcde\0" + b"fact" + struct.pack("<I", 4) + b"\0\0\0\0"
    assert (read_audio(riff(MONO, before=extra, after=b"LIST\x02\0\0\0ab"), "x")[1] == MONO).all()
    unpadded = b"LIST" + struct.pack("<I", 5) + b"abcde"  # against the standard, but it is met
    assert (read_audio(riff(MONO, before=unpadded), "x")[1] == MONO).all()
    assert (
        len(read_audio(riff(MONO[:0], after=b"LIST\x02\0\0\0ab"), "x")[1]) == 0
    )  # no samples, and it says so


@pytest.mark.parametrize("cut", [1, 2, 1000, 1999, 2000])
def test_cut_wav_names_file_and_sizes(cut):
    data = riff(MONO)[:-cut]
    with pytest.raises(
        VoxarkError, match=f"^a/b.wav: truncated wav: .* 2000 bytes of samples, {2000 - cut} were found"
    ):
        read_audio(data, "a/b.wav")
    for end in range(44):
        with pytest.raises(VoxarkError, match="^a/b.wav: "):
            read_audio(riff(MONO)[:end], "a/b.wav")


@pytest.mark.parametrize(
    "subtype, limit",
    [
        ("PCM_24", 0.01),
        ("FLOAT", 1e-9),
        ("DOUBLE", 0.001),
        ("PCM_32", 0.002),
        ("PCM_U8", 256.0),
        ("ULAW", 600.0),
        ("ALAW", 600.0),
        ("PCM_16", 1.0),
    ],
)
@pytest.mark.parametrize("format", ["WAV", "WAVEX", "RF64", "AIFF"])
# libsndfile cuts fractions off when it writes
def test_codings_keep_scale_and_precision(format, subtype, limit):
    if not soundfile.check_format(format, subtype):
        pytest.skip(f"libsndfile writes no {subtype} into {format}")
    for exact in (MONO / 32768.0 * 0.9, STEREO / 32768.0 * 0.9):
        rate, samples = read_audio(encode(exact.astype(np.float32), format, subtype, 22050), "x")
        assert rate == 22050 and samples.shape == exact.shape
        assert samples.dtype == (np.int16 if subtype == "PCM_16" else np.float32)
        assert np.abs(samples - exact.astype(np.float32).astype(np.float64) * 32768).max() <= limit


def test_big_endian_and_extensible_wav():
    assert encode(STEREO, "WAV", "PCM_16", endian="BIG")[:4] == b"RIFX"
    for data in (
        encode(STEREO, "WAV", "PCM_16", endian="BIG"),
        encode(STEREO, "WAVEX", "PCM_16"),
        encode(STEREO, "RF64", "PCM_16"),
    ):
        rate, samples = read_audio(data, "x")
        assert rate == 16000 and samples.dtype == np.int16 and (samples == STEREO).all()
    with pytest.raises(VoxarkError, match="truncated wav: .* 4000 bytes of samples, 3999"):
        read_audio(encode(STEREO, "RF64", "PCM_16")[:-1], "x")


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_flac(subtype):
    samples = read_audio(encode(MONO, "FLAC", subtype), "x.flac")[1]
    assert samples.dtype == (np.int16 if subtype == "PCM_16" else np.float32) and (samples == MONO).all()
    with pytest.raises(VoxarkError, match="^x.flac: "):
        read_audio(encode(MONO, "FLAC", subtype)[:200], "x.flac")


@pytest.mark.parametrize(
    "form",
    [
        struct.pack("<HHIIHH", 1, 0, 16000, 32000, 2, 16),
        struct.pack("<HHIIHH", 1, 1, 0, 0, 2, 16),
        struct.pack("<HHIIHH", 1, 1, 16000, 32000, 0, 16),
        b"\1\0\1\0",
    ],
)
def test_impossible_formats(form):
    with pytest.raises(VoxarkError, match="^x: corrupt wav"):
        read_audio(riff(MONO, form=form), "x")


@pytest.mark.parametrize(
    "data, words",
    [
        (b"", "empty"),
        (b"hello, world", "not an audio file"),
        (b"RIFF", "not an audio"),
        (bytes(5000), "not an audio"),
        (b"RIFF\0\0\0\0WAVE", "no data chunk"),
    ],
)
def test_what_is_no_audio(data, words):
    with pytest.raises(VoxarkError, match=f"^some/file: .*{words}"):
        read_audio(data, "some/file")


def test_float_wav_with_nan():
    bad = np.array([0.0, np.nan, 0.5], np.float32)
    with pytest.raises(VoxarkError, match="NaN"):
        read_audio(encode(bad, "WAV", "FLOAT"), "x")


SEEDS = [
    riff(STEREO[:20]),
    encode(MONO[:20], "WAVEX", "PCM_24"),
    encode(MONO[:20], "RF64", "FLOAT"),
    encode(MONO[:50], "FLAC", "PCM_16"),
    sphere(MONO[:20].tobytes(), {"sample_rate -i": 16000, "sample_count -i": 20}),
]


@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.integers(0, 1100), st.integers(0, 255)), max_size=4),
    end=st.integers(0, 1200),
)
def test_damaged_files_give_samples_or_one_clear_line(seed, changes, end):
    data = bytearray(seed[:end])
    for place, value in changes:
        if place < len(data):
            data[place] = value
    try:
        rate, samples = read_audio(bytes(data), "damaged")
    except VoxarkError as error:
        assert str(error).startswith("damaged: ") and "\n" not in str(error)
    else:
        assert rate > 0 and samples.ndim in (1, 2) and samples.dtype in (np.int16, np.float32)


# ------------------------------------------------------------------------------------ SPHERE


@pytest.mark.parametrize("byte_format, order", [("-s2 01", "<"), ("-s2 10", ">")])
@pytest.mark.parametrize("coding", [{}, {"sample_coding": "-s3 pcm"}])
def test_sphere_pcm(byte_format, order, coding):
    fields = {
        "database_id": "-s5 TIMIT",
        "utterance_id": "-s8 cjf0_sa1",
        "channel_count": "-i 1",
        "sample_count": "-i 1000",
        "sample_rate": "-i 16000",
        "sample_n_bytes": "-i 2",
        "sample_byte_format": byte_format,
        "sample_sig_bits": "-i 16",
        **coding,
    }
    data = sphere(MONO.astype(order + "i2").tobytes(), fields)
    rate, samples = read_audio(data, "x.sph")
    assert rate == 16000 and samples.dtype == np.int16 and (samples == MONO).all()
    if coding:  # libsndfile agrees
        assert (soundfile.read(io.BytesIO(data), dtype="int16")[0] == MONO).all()
    with pytest.raises(VoxarkError, match="^x.sph: truncated SPHERE: .* 2000 bytes of samples, 1990"):
        read_audio(data[:-10], "x.sph")


@pytest.mark.parametrize("coding, subtype", [("ulaw", "ULAW"), ("mu-law", "ULAW"), ("alaw", "ALAW")])
def test_sphere_laws(coding, subtype):
    codes = np.arange(256, dtype=np.uint8)
    fields = {
        "channel_count": "-i 2",
        "sample_rate": "-i 8000",
        "sample_n_bytes": "-i 1",
        "sample_count": "-i 128",
        "sample_byte_format": "-s1 1",
        "sample_coding": f"-s{len(coding)} {coding}",
    }
    rate, samples = read_audio(sphere(codes.tobytes(), fields), "x.sph")
    expected = soundfile.read(
        io.BytesIO(codes.tobytes()), format="RAW", subtype=subtype, samplerate=8000, channels=2, dtype="int16"
    )[0]
    assert rate == 8000 and samples.dtype == np.int16 and (samples == expected).all()


def test_sphere_by_libsndfile_and_without_a_count():
    for subtype in ("PCM_16", "ULAW", "ALAW"):
        data = encode(MONO, "NIST", subtype)
        assert (read_audio(data, "x")[1] == soundfile.read(io.BytesIO(data), dtype="int16")[0]).all()
    piped = {
        "sample_n_bytes": "-i 2",
        "channel_count": "-i 1",
        "sample_byte_format": "-s2 01",
        "sample_rate": "-i 8000",
    }
    assert (read_audio(sphere(MONO.tobytes(), piped), "x")[1] == MONO).all()


@pytest.mark.parametrize(
    "payload, coding", [(b"", "-s26 pcm,embedded-shorten-v2.00"), (b"ajkg\2", "-s3 pcm")]
)
def test_shorten_names_sph2pipe(payload, coding):
    data = sphere(payload, {"sample_rate": "-i 16000", "sample_count": "-i 9", "sample_coding": coding})
    with pytest.raises(VoxarkError, match=r"utt sph2pipe -f wav -p wsj/a.wv1 \|$"):
        read_audio(data, "wsj/a.wv1")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"sample_rate": "-i abc"},
        {"sample_rate": "-i 0"},
        {"sample_rate": "-i 8000", "sample_coding": "-s3 xyz"},
        {"sample_rate": "-i 8000", "sample_n_bytes": "-i 3"},
    ],
)
def test_strange_sphere_headers(fields):
    with pytest.raises(VoxarkError, match="^x: .*SPHERE"):
        read_audio(sphere(MONO.tobytes(), fields), "x")
    with pytest.raises(VoxarkError, match="end_head"):
        read_audio(sphere(b"", fields)[:14], "x")


# ------------------------------------------------------------------------------------ channels, segments


def test_select_channel():
    assert (select_channel(STEREO, 1) == STEREO[:, 1]).all() and (select_channel(MONO, 0) == MONO).all()
    assert (select_channel(MONO) == MONO).all()
    with pytest.raises(VoxarkError, match="--channel"):
        select_channel(STEREO)
    for samples, channel in ((STEREO, 2), (MONO, 1), (MONO, -2)):
        with pytest.raises(VoxarkError, match="--channel"):
            select_channel(samples, channel)


def test_cut_segment():
    x = np.arange(16000, dtype=np.int16)
    assert (cut_segment(x, 16000, Segment("r", 0.25, 0.5, None)) == x[4000:8000]).all()
    assert (cut_segment(x, 16000, Segment("r", 0.25, -1.0, "0")) == x[4000:]).all()
    assert (cut_segment(x, 16000, Segment("r", 0.5, 1.49, None)) == x[8000:]).all()
    both = np.stack([x, -x], axis=1)
    assert (cut_segment(both, 16000, Segment("r", 0.0, 0.5, "1")) == -x[:8000]).all()
    for segment, words in (
        ((0.5, 1.5, None), "--max-overshoot"),
        ((0.5, 0.6, None), "--min-segment-length"),
        ((1.0, -1.0, None), "begins"),
        ((0.0, 1.0, "1"), "channel"),
        ((0.0, 1.0, "A"), "channel"),
    ):
        with pytest.raises(VoxarkError, match=words):
            cut_segment(x, 16000, Segment("r", *segment))
    with pytest.raises(VoxarkError, match="fifth column"):
        cut_segment(both, 16000, Segment("r", 0.0, 0.5, None))


@needs_golden
def test_extract_segments_program(tmp_path):
    (tmp_path / "segments").write_text(
        "b-1 syn-noise 0.1 0.6\nb-2 syn-noise 0.5 -1\na-1 0003-000030012 1.0 2.25 0\nc-1 nowhere 0 1\n"
        "d-1 syn-noise x 1\n"
        "d-2 syn-noise 1 0.5\nd-3\nd-4 syn-noise 0.0 0.05\n"
    )
    result = run(
        "extract-segments",
        "scp:wav16.scp",
        tmp_path / "segments",
        f"ark,scp:{tmp_path}/s.ark,{tmp_path}/s.scp",
        f"--failed-list={tmp_path}/failed",
        cwd=golden(),
    )
    assert "done 3, failed 5" in result.stderr
    assert [line.split()[0] for line in open(tmp_path / "failed")] == ["c-1", "d-1", "d-2", "d-3", "d-4"]
    noise = read_audio(golden("audio/syn-noise.wav").read_bytes(), "x")[1]
    speech = read_audio(golden("audio/0003-000030012.wav").read_bytes(), "x")[1]
    expected = {"b-1": noise[1600:9600], "b-2": noise[8000:], "a-1": speech[16000:36000]}
    for key, (rate, samples) in kaldiio.load_scp(str(tmp_path / "s.scp")).items():
        assert rate == 16000 and (samples == expected.pop(key)).all()
    assert not expected
    archive = b"".join(
        key + b" " + write_wav(16000, samples)
        for key, samples in (
            (b"b-1", noise[1600:9600]),
            (b"b-2", noise[8000:]),
            (b"a-1", speech[16000:36000]),
        )
    )
    assert (tmp_path / "s.ark").read_bytes() == archive


@needs_golden
def test_segments_through_a_pipe_to_features(tmp_path):
    (tmp_path / "segments").write_text("a syn-noise 0.1 0.6\nb syn-tone 0.2 0.8\n")
    done = shell(
        f"extract-segments scp:wav16.scp {tmp_path}/segments ark:- | compute-mfcc --dither=0 ark:- ark,t:-",
        cwd=golden(),
    )
    lines = done.stdout.decode().splitlines()
    assert [line.split()[0] for line in lines if "[" in line] == ["a", "b"] and len(lines) == 2 + 48 + 58


# ------------------------------------------------------------------------------------ programs, bad input


def compute(tmp_path, lines, *options, program="compute-fbank", **settings):
    (tmp_path / "wav.scp").write_text("".join(line + "\n" for line in lines))
    return run(
        program, "--dither=0", *options, f"scp:{tmp_path}/wav.scp", f"ark:{tmp_path}/out.ark", **settings
    )


@pytest.fixture
def files(tmp_path):
    """A folder of audio in many forms: the same 16000 samples of noise."""
    noise = (1000 * np.random.default_rng(1).standard_normal(16000)).astype(np.int16)
    for name, data in {
        "plain.wav": write_wav(16000, noise),
        "stereo.wav": write_wav(16000, np.stack([noise[::-1], noise], axis=1)),
        "24.wav": encode(noise, "WAV", "PCM_24"),
        "float.wav": encode(noise / np.float32(32768), "WAV", "FLOAT"),
        "a.flac": encode(noise, "FLAC", "PCM_16"),
        "a.sph": encode(noise, "NIST", "PCM_16"),
        "law.sph": encode(noise, "NIST", "ULAW"),
        "empty.wav": b"",
        "text.wav": b"this is no audio\n",
        "cut.wav": write_wav(16000, noise)[:-100],
        "none.wav": write_wav(16000, noise[:0]),
        "one.wav": write_wav(16000, noise[:1]),
        "short.sph": sphere(
            b"", {"sample_rate": "-i 16000", "sample_coding": "-s3 pcm,embedded-shorten-v2.00"}
        ),
    }.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_all_formats_give_the_same_features(files):
    names = ["plain.wav", "24.wav", "float.wav", "a.flac", "a.sph", "law.sph"]
    compute(files, [f"{name} {files}/{name}" for name in names] + [f"piped cat {files}/plain.wav |"])
    features = dict(kaldiio.load_ark(str(files / "out.ark")))
    assert list(features) == names + ["piped"]
    for name in ("24.wav", "float.wav", "a.flac", "a.sph", "piped"):
        np.testing.assert_allclose(features[name], features["plain.wav"], rtol=0, atol=1e-3)
    assert 1e-3 < np.abs(features["law.sph"] - features["plain.wav"]).mean() < 0.5


def test_channel_option(files):
    line = [f"a {files}/stereo.wav"]
    compute(files, line, "--channel=1")
    right = dict(kaldiio.load_ark(str(files / "out.ark")))["a"]
    compute(files, [f"a {files}/plain.wav"])
    assert (dict(kaldiio.load_ark(str(files / "out.ark")))["a"] == right).all()
    result = compute(files, line, check=False)
    assert result.returncode == 1 and "ERROR" in result.stderr and "a: " in result.stderr
    assert "--channel" in result.stderr
    assert compute(files, line, "--channel=2", check=False).returncode == 1


@pytest.mark.parametrize("program", ["compute-fbank", "compute-mfcc"])
@pytest.mark.parametrize(
    "name, words",
    [
        ("absent.wav", "No such file"),
        ("empty.wav", "empty"),
        ("text.wav", "not an audio file"),
        ("cut.wav", "32000 bytes of samples, 31900 were found"),
        ("short.sph", "utt sph2pipe -f wav -p"),
    ],
)
def test_bad_files_end_the_program_with_one_line(files, program, name, words):
    result = compute(files, [f"good {files}/plain.wav", f"bad {files}/{name}"], program=program, check=False)
    assert result.returncode == 1 and not (files / "out.ark").exists()
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
    assert "bad" in error and f"{files}/{name}" in error and words in error


def test_bad_files_are_skipped_when_allowed(files):
    (files / "wav.scp").write_text(f"bad {files}/cut.wav\ngood {files}/plain.wav\n")
    result = run("compute-fbank", f"scp,p:{files}/wav.scp", f"ark:{files}/out.ark")
    assert "done 1, failed 1" in result.stderr and list(dict(kaldiio.load_ark(str(files / "out.ark")))) == [
        "good"
    ]


def test_audio_too_short_is_counted(files):
    lines = [f"none {files}/none.wav", f"one {files}/one.wav", f"plain {files}/plain.wav"]
    result = compute(files, lines, f"--failed-list={files}/failed")
    assert "done 1, failed 2" in result.stderr
    assert [line.split()[0] for line in open(files / "failed")] == ["none", "one"]
    result = compute(files, lines[:2], check=False)
    assert result.returncode == 1 and "done 0, failed 2" in result.stderr
    result = compute(files, lines, "--min-duration=2", check=False)
    assert result.returncode == 1 and "--min-duration" in result.stderr


def test_wrong_rate(files):
    line = [f"a {files}/plain.wav"]
    result = compute(files, line, "--sample-frequency=8000", check=False)
    assert result.returncode == 1
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
    assert all(word in error for word in ("a: ", "16000", "--sample-frequency", "--allow-downsample"))
    assert "--allow-upsample" in compute(files, line, "--sample-frequency=44100", check=False).stderr
    compute(files, line, "--sample-frequency=8000", "--allow-downsample=true")
    compute(files, line, "--sample-frequency=44100", "--allow-upsample=true")


def test_failing_pipes(files):
    for command, words in (
        ("false |", "status 1"),
        (f"cat {files}/absent.wav |", "status 1"),
        (f"cat {files}/plain.wav; exit 3 |", "status 3"),
        (f"cat {files}/cut.wav; exit 3 |", "status 3"),
        (f"head -c 5 {files}/plain.wav; kill -9 $$ |", "ended by signal 9"),
        ("nosuchprogram |", "status 127 (no such program?)"),
        ("true |", "the audio file is empty"),
    ):
        result = compute(files, [f"a {command}"], check=False)
        (error,) = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        assert result.returncode == 1 and f"a: {command}: " in error and error.endswith(words), command
    result = compute(files, [f"a cat {files}/plain.wav |"], "--allow-pipes=false", check=False)
    assert result.returncode == 1 and "pipe" in result.stderr


@pytest.mark.parametrize(
    "options, words",
    [
        (["--utt2spk=ark:x"], "--vtln-map"),
        (["--compress=true", "--compression-method=9"], "--compression-method"),
        (["--num-mel-bins=300"], "contains no line"),
        (["--window-type=kaiser"], "window-type"),
    ],
)
def test_wrong_options(files, options, words):
    result = compute(files, [f"a {files}/plain.wav"], *options, check=False)
    assert result.returncode == 1 and words in result.stderr
