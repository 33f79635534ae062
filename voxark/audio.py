"""Audio files to samples and back: wav and SPHERE read here, everything else by libsndfile.

Samples are at 16-bit scale (full scale 32768) whatever the file's format, as Kaldi has them.
"""

import logging
import struct

import numpy as np

from voxark.errors import VoxarkError

logger = logging.getLogger(__name__)

_PCM, _EXTENSIBLE = 1, 0xFFFE  # format tags of a wav file
_UNKNOWN_SIZE = 0x7FFFF000  # programs that write to a pipe put this (sox) or more (0xFFFFFFFF), or 0


def read_audio(data, name):
    """Decode a whole audio file: (rate in Hz, samples (N,) or (N, channels)).

    Formats: RIFF, RIFX and RF64 wav, NIST SPHERE (pcm, mu-law, A-law), and what libsndfile reads (flac, ogg,
    aiff, ...). Samples are int16 where the file holds 16-bit PCM (or SPHERE's mu-law and A-law); all else is
    float32 at the same scale and keeps its precision (32-bit PCM and float64 are rounded to 24 bits). A size
    in a wav header that stands for "unknown" is read to the end of the data.
    Raises VoxarkError, naming ``name``, for empty, cut, corrupt or unknown data.
    """
    head = bytes(data[:12])
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return _read_wav(data, name)
    if head[:7] == b"NIST_1A":
        return _read_sphere(data, name)
    if not head:
        raise VoxarkError(f"{name}: the audio file is empty")
    return _read_soundfile(data, name)


def select_channel(samples, channel=-1):
    """Return one channel (N,) of samples (N,) or (N, channels); -1 expects a single one [K].

    Raises VoxarkError where several channels leave the choice open, and for a channel that is not there.
    """
    num_channels = 1 if samples.ndim == 1 else samples.shape[1]
    if channel == -1 and num_channels > 1:
        raise VoxarkError(f"the audio has {num_channels} channels: choose one with --channel, from 0")
    if not -1 <= channel < num_channels:
        raise VoxarkError(f"--channel={channel}, but the audio has {num_channels} channel"
                          f"{'s' if num_channels > 1 else ''} (counted from 0)")
    return samples if samples.ndim == 1 else samples[:, max(channel, 0)]


# ---------------------------------------------------------------------------------------------- wav


def _wav_chunks(data, order, name):
    """Yield (identifier, offset of the contents, declared size) of the chunks of a wav file."""
    position, sizes = 12, struct.Struct(order + "4sI")
    while position + 8 <= len(data):
        identifier, size = sizes.unpack_from(data, position)
        yield identifier, position + 8, size
        position += 8 + size
        if size % 2 and data[position : position + 4] != b"data":
            position += 1  # chunks begin at even offsets, though some programs forget it
    raise VoxarkError(f"{name}: truncated wav: no data chunk in its {len(data)} bytes")


def _data_size(data, declared, start, riff_size, name):
    """Bytes of samples that are there: as many as declared, unless the size is a mark for unknown."""
    available = len(data) - start
    if declared == 0 and riff_size + 8 != len(data) or declared >= _UNKNOWN_SIZE and declared > available:
        return available
    if declared > available:
        raise VoxarkError(f"{name}: truncated wav: its header announces {declared} bytes of samples, "
                          f"{available} were found")
    return declared


def _read_wav(data, name):
    order = ">" if data[:4] == b"RIFX" else "<"
    (riff_size,) = struct.unpack_from(order + "I", data, 4)
    form = long_size = None
    for identifier, start, size in _wav_chunks(data, order, name):
        if identifier == b"fmt ":
            if size < 16 or start + size > len(data):
                raise VoxarkError(f"{name}: corrupt wav: a format chunk of {size} bytes")
            form = struct.unpack_from(order + "HHIIHH", data, start)
            tag = form[0]
            if tag == _EXTENSIBLE and size >= 26:
                (tag,) = struct.unpack_from(order + "H", data, start + 24)
        elif identifier == b"ds64" and data[:4] == b"RF64" and start + 16 <= len(data):
            riff_size, long_size = struct.unpack_from("<QQ", data, start)
        elif identifier == b"data":
            break
    if form is None:
        raise VoxarkError(f"{name}: corrupt wav: no format chunk before its data")
    _, num_channels, rate, _, frame_bytes, num_bits = form
    if not (num_channels and rate and frame_bytes):
        raise VoxarkError(f"{name}: corrupt wav: {num_channels} channels, {rate} Hz, {frame_bytes} bytes")
    if long_size is not None and size == 0xFFFFFFFF:
        size = long_size
    size = _data_size(data, size, start, riff_size, name)
    if tag != _PCM or num_bits != 16 or frame_bytes != 2 * num_channels:
        return _read_soundfile(_with_sizes(data, order, start, size), name)
    number = size // frame_bytes * num_channels
    samples = np.frombuffer(data, order + "i2", number, start).astype(np.int16, copy=False)
    return rate, samples if num_channels == 1 else samples.reshape(-1, num_channels)


def _with_sizes(data, order, start, size):
    """The file, its sizes set to what was found, so that libsndfile need not guess."""
    if data[:4] == b"RF64" or struct.unpack_from(order + "I", data, start - 4) == (size,):
        return data
    field = struct.Struct(order + "I")
    return b"".join([data[:4], field.pack(min(start - 8 + size, 0xFFFFFFFF)), data[8 : start - 4],
                     field.pack(min(size, 0xFFFFFFFF)), data[start : start + size]])


def write_wav(rate, samples):
    """Encode samples (N,) or (N, channels) at 16-bit scale as 16-bit PCM wav, byte for byte as Kaldi does.

    Fractions are cut off; what exceeds 16 bits is clipped, with a warning. Raises VoxarkError above 4 GiB.
    """
    samples = np.asarray(samples)
    num_channels = 1 if samples.ndim == 1 else samples.shape[1]
    if samples.dtype != np.int16:
        clipped = np.clip(samples, -32768, 32767)
        number = int(np.count_nonzero(np.abs(samples - clipped) >= 1.0))
        if number:
            logger.warning("clipped %d of %d samples to 16 bits", number, samples.size)
        samples = clipped.astype(np.int16)
    size = 2 * samples.size
    if size + 36 > 0xFFFFFFFF:
        raise VoxarkError(f"{samples.size} samples exceed the 4 GiB of a wav file")
    frame_bytes = 2 * num_channels
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, _PCM, num_channels,
                         int(rate), int(rate) * frame_bytes, frame_bytes, 16, b"data", size)
    return header + samples.astype("<i2", copy=False).tobytes()


# ---------------------------------------------------------------------------------------------- segments


def cut_segment(samples, rate, segment, min_length=0.1, max_overshoot=0.5):
    """Cut a segment (a datadir.Segment) out of a recording's samples (N,) or (N, channels): (n,) [K].

    ``min_length`` and ``max_overshoot`` are in seconds. Raises VoxarkError for a segment that is too short,
    begins or ends too far beyond the recording, or leaves open which of several channels is meant.
    """
    num_channels, where = samples.shape[1] if samples.ndim == 2 else 1, f"recording {segment.recording}"
    channel = segment.channel
    if channel is None:
        if num_channels > 1:
            raise VoxarkError(f"{where} has {num_channels} channels: name one (from 0) in the fifth column "
                              "of the segments file")
        channel = 0
    if not str(channel).isdecimal() or int(channel) >= num_channels:
        raise VoxarkError(f"{where} has {num_channels} channel(s), counted from 0, and not one {channel!r}")
    length = len(samples)
    start, end = int(segment.start * rate), length if segment.end == -1 else int(segment.end * rate)
    if start >= length:
        raise VoxarkError(f"begins at sample {start}, {where} has {length}")
    if end > length and end >= length + int(max_overshoot * rate):
        raise VoxarkError(f"ends at sample {end}, {where} has {length} (see --max-overshoot)")
    end = min(end, length)
    if end <= start + int(min_length * rate):
        raise VoxarkError(f"{(end - start) / rate:.3f} s are too short (see --min-segment-length)")
    return samples[start:end] if samples.ndim == 1 else samples[start:end, int(channel)]


# ---------------------------------------------------------------------------------------------- libsndfile


def _read_soundfile(data, name):
    import io

    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise VoxarkError(f"{name}: this format is read by libsndfile, which is missing ({error}); "
                          "pip install soundfile") from None
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.subtype == "PCM_16":
                samples = file.read(dtype="int16")
            else:
                samples = file.read(dtype="float32") * np.float32(32768.0)
            rate = file.samplerate
            missing = file.frames - len(samples)
    except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
        reason = (str(error).partition(": ")[2] or str(error)).strip().rstrip(".")
        raise VoxarkError(f"{name}: not an audio file that can be read ({reason})") from None
    if missing > 0:
        raise VoxarkError(f"{name}: truncated audio: {missing + len(samples)} samples announced, "
                          f"{len(samples)} found")
    if samples.dtype != np.int16 and not np.isfinite(samples).all():
        raise VoxarkError(f"{name}: the audio holds a NaN or an infinity")
    return rate, samples


# ---------------------------------------------------------------------------------------------- NIST SPHERE


def sphere_fields(data, name):
    """Size of a SPHERE header in bytes and its fields (name -> text)."""
    try:
        size = int(bytes(data[8:16]))
        lines = bytes(data[16:size]).decode("latin-1").split("\n")
    except ValueError:
        raise VoxarkError(f"{name}: corrupt SPHERE header") from None
    fields = {}
    for line in lines:
        words = line.split(None, 2)
        if words[:1] == ["end_head"]:
            return size, fields
        if len(words) == 3 and not line.startswith(";"):
            fields[words[0]] = words[2].strip()
    raise VoxarkError(f"{name}: corrupt SPHERE header: no end_head in its first {min(size, len(data))} bytes")


def _ulaw_table():
    """The 256 values of G.711 mu-law, int16."""
    code = 255 - np.arange(256)
    magnitude = ((((code & 15) << 3) + 132) << ((code & 112) >> 4)) - 132
    return np.where(code & 128, -magnitude, magnitude).astype(np.int16)


def _alaw_table():
    """The 256 values of G.711 A-law, int16."""
    code = np.arange(256) ^ 85
    segment = (code & 112) >> 4
    magnitude = (((code & 15) << 4) + np.where(segment == 0, 8, 264)) << np.maximum(segment - 1, 0)
    return np.where(code & 128, magnitude, -magnitude).astype(np.int16)


_LAWS = {"ulaw": _ulaw_table, "mu-law": _ulaw_table, "alaw": _alaw_table, "a-law": _alaw_table}


def _read_sphere(data, name):
    start, fields = sphere_fields(data, name)
    coding = fields.get("sample_coding", "pcm").lower()
    if "embedded-" in coding or bytes(data[start : start + 4]) == b"ajkg":  # the first bytes of shorten
        raise VoxarkError(f"{name}: a compressed SPHERE file ({coding}): decode it with sph2pipe, in wav.scp "
                          f"by a line like: utt sph2pipe -f wav -p {name} |")
    try:
        rate, num_channels = int(float(fields["sample_rate"])), int(fields.get("channel_count", 1))
        num_bytes = int(fields.get("sample_n_bytes", 2 if coding == "pcm" else 1))
        number = int(fields["sample_count"]) * num_channels if "sample_count" in fields else None
    except (KeyError, ValueError) as error:
        raise VoxarkError(f"{name}: corrupt SPHERE header: {error}") from None
    table = _LAWS.get(coding)
    known = num_bytes == 1 if table else coding == "pcm" and num_bytes == 2
    if rate <= 0 or num_channels <= 0 or not known:
        raise VoxarkError(f"{name}: a SPHERE file of {num_channels} channels of {num_bytes}-byte {coding} at "
                          f"{rate} Hz cannot be read; sph2pipe may: utt sph2pipe -f wav -p {name} |")
    available = max(0, len(data) - start) // num_bytes // num_channels * num_channels
    if number is None:  # written to a pipe
        number = available
    if number > available:
        raise VoxarkError(f"{name}: truncated SPHERE: its header announces {number * num_bytes} bytes of "
                          f"samples, {len(data) - start} were found")
    if table:
        samples = table()[np.frombuffer(data, np.uint8, number, start)]
    else:
        order = ">" if fields.get("sample_byte_format") == "10" else "<"
        samples = np.frombuffer(data, order + "i2", number, start).astype(np.int16, copy=False)
    return rate, samples if num_channels == 1 else samples.reshape(-1, num_channels)
