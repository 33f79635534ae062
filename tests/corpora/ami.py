"""Small trees in the layout of the AMI corpus: recordings of meetings, and annotations in NXT XML."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from corpora import recorded, sounds
from scipy.signal import fftconvolve, lfilter

HEAD = '<?xml version="1.0" encoding="ISO-8859-1" standalone="yes"?>\n'
NITE = 'xmlns:nite="http://nite.sourceforge.net/"'
WORDS = (
    "okay so the remote control should be yellow and we could have a kinetic battery in it I think".split()
)
# meetings of the sets of Full-corpus-ASR; all talkers of a group are in each of its meetings
GROUPS = {"ES2002": "ab", "TS3005": "ab", "IS1008": "a", "ES2004": "ab"}


class Said(NamedTuple):
    """A turn: agent, start in seconds, samples int16 (N,), words (none: a laugh)."""

    agent: str
    start: float
    samples: np.ndarray
    words: list

    @property
    def end(self):
        """End in seconds."""
        return self.start + len(self.samples) / sounds.RATE


def write_meeting(folder, meeting, turns, room_seed=0):
    """Write the recordings and annotations of one meeting; ``turns``: a list of Said, of agents A, B, ..."""
    agents = sorted({turn.agent for turn in turns})
    audio, notes = Path(folder, "amicorpus", meeting, "audio"), Path(folder, "ami_public_manual_1.6.2")
    for path in (audio, notes / "words", notes / "segments", notes / "corpusResources"):
        path.mkdir(parents=True, exist_ok=True)
    length = int((max(turn.end for turn in turns) + 0.3) * sounds.RATE)
    tracks = np.zeros((len(agents), length))
    for turn in turns:
        begin = int(turn.start * sounds.RATE)
        tracks[agents.index(turn.agent), begin : begin + len(turn.samples)] += turn.samples
    rng = np.random.default_rng([room_seed, len(turns)])
    for number, track in enumerate(tracks):  # the other talkers are faint in a headset
        headset = track + 0.02 * (tracks.sum(axis=0) - track) + rng.normal(0, 4, length)
        (audio / f"{meeting}.Headset-{number}.wav").write_bytes(sounds.wav(_rounded(headset)))
    (audio / f"{meeting}.Array1-01.wav").write_bytes(sounds.wav(_rounded(_distant(tracks, room_seed, rng))))
    for agent in agents:
        _write_annotations(notes, meeting, agent, agents.index(agent), [t for t in turns if t.agent == agent])


def _rounded(signal):
    return np.clip(np.round(signal), -32768, 32767).astype(np.int16)


def _distant(tracks, room_seed, rng):
    """What a microphone on the table hears: all talkers, each by his own path through the room, and noise."""
    room = np.random.default_rng(room_seed)
    decay = np.exp(-np.arange(int(0.25 * sounds.RATE)) / (0.05 * sounds.RATE))
    mixed = np.zeros(tracks.shape[1])
    for track in tracks:
        path = 0.05 * room.normal(0, 1, len(decay)) * decay
        path[0] = 1.0
        mixed += 0.3 * fftconvolve(track, path)[: len(mixed)]
    return lfilter([0.7], [1, -0.3], mixed) + rng.normal(0, 25, len(mixed))


def _write_annotations(notes, meeting, agent, channel, turns):
    prefix, words, segments = f"{meeting}.{agent}", [], []

    def element(tag, start, end, rest):
        name = f"{prefix}.words{len(words)}"
        words.append(f'   <{tag} nite:id="{name}" starttime="{start:.2f}" endtime="{end:.2f}"{rest}\n')
        return name

    for number, turn in enumerate(turns):
        step = (turn.end - turn.start) / max(len(turn.words), 1)
        names = [element("w", turn.start + k * step, turn.start + (k + 1) * step, f">{word}</w>")
                 for k, word in enumerate(turn.words)]  # fmt: skip
        names.append(element("w", turn.end, turn.end, ' punc="true">.</w>') if turn.words else
                     element("vocalsound", turn.start, turn.end, ' type="laugh"/>'))  # fmt: skip
        href = f"{prefix}.words.xml#id({names[0]})" + (f"..id({names[-1]})" if len(names) > 1 else "")
        segments.append(
            f'   <segment nite:id="{meeting}.sync.{number}" channel="{channel}" '
            f'transcriber_start="{turn.start:.3f}" transcriber_end="{turn.end:.3f}">\n'
            f'      <nite:child href="{href}"/>\n   </segment>\n'
        )
    for kind, short, rows in (("words", "words", words), ("segments", "segs", segments)):
        text = f'{HEAD}<nite:root nite:id="{prefix}.{short}" {NITE}>\n{"".join(rows)}</nite:root>\n'
        (notes / kind / f"{prefix}.{kind}.xml").write_text(text, encoding="latin-1")


def write_resources(folder, meetings, genders):
    """Write meetings.xml and participants.xml; ``meetings``: {meeting: [name of agent A, of B, ...]}."""
    resources = Path(folder, "ami_public_manual_1.6.2", "corpusResources")
    rows = []
    for number, (meeting, names) in enumerate(meetings.items()):
        rows.append(
            f'   <meeting nite:id="meet_{number}" observation="{meeting}" duration="60" type="scenario">\n'
        )
        rows += [
            f'      <speaker nite:id="{meeting}_{place}" channel="{place}" camera="Closeup{place + 1}" '
            f'nxt_agent="{"ABCDE"[place]}" global_name="{name}" role="PM"/>\n'
            for place, name in enumerate(names)
        ]
        rows.append("   </meeting>\n")
    text = f'{HEAD}<nite:root nite:id="meetings" {NITE}>\n{"".join(rows)}</nite:root>\n'
    (resources / "meetings.xml").write_text(text)
    rows = [
        f'   <participant nite:id="{name}" sex="{gender.upper()}" age_at_collection="30"/>\n'
        for name, gender in genders.items()
    ]
    text = f'{HEAD}<nite:root nite:id="participants" {NITE}>\n{"".join(rows)}</nite:root>\n'
    (resources / "participants.xml").write_text(text)


def _people(number, num_turns, rng, shared, seed):
    """Yield (gender, [samples of each turn]) of ``number`` talkers."""
    known = recorded.speakers(shared, "ami_excerpts/all", number)
    for place in range(number):
        if place < len(known):
            gender, samples = known[place]
            yield gender, recorded.pieces_of(samples, rng.uniform(1.8, 3.0, num_turns))
        else:
            gender = "mf"[place % 2]
            voice = sounds.Voice(f"{gender}{place}")
            takes = enumerate(rng.uniform(1.8, 3.0, num_turns))
            yield gender, [voice.say(seed, place, take, seconds=value)[0] for take, value in takes]


def build(folder, groups=None, num_turns=3, num_talkers=4, shared=None, seed=0):
    """A tree of a few meetings; returns ``folder``.

    ``groups``: {first six letters of meetings: their last letters}, by default two groups for training (8
    talkers), one for development, one for tests (4 talkers). Each talker says ``num_turns`` turns of 1.8 to
    3 s in a meeting; one more is said while another talks, and there is one laugh without words. Pieces of
    real speech are used where ``shared``, the folder data beside the checkout, has ami_excerpts.
    """
    groups, rng, meetings, genders = groups or GROUPS, np.random.default_rng(seed), {}, {}
    most = num_turns * max(map(len, groups.values()))
    people = list(_people(num_talkers * len(groups), most, rng, shared, seed))
    for number, (group, letters) in enumerate(groups.items()):
        own = people[number * num_talkers : (number + 1) * num_talkers]
        names = [
            f"{gender.upper()}{group[0]}E{100 + 10 * number + place}" for place, (gender, _) in enumerate(own)
        ]
        genders.update({name: gender for name, (gender, _) in zip(names, own, strict=True)})
        for place, letter in enumerate(letters):
            pieces = [samples[place * num_turns : (place + 1) * num_turns] for _, samples in own]
            meetings[group + letter] = names
            write_meeting(folder, group + letter, _conversation(pieces, rng), room_seed=number)
    write_resources(folder, meetings, genders)
    return Path(folder)


def _conversation(pieces, rng):
    """A list of Said; ``pieces``: [samples of each turn] of each talker, who take turns in a random order."""
    turns, time = [], 0.5
    for take in range(len(pieces[0])):
        for place in rng.permutation(len(pieces)):
            samples = pieces[place][take]
            words = list(rng.choice(WORDS, 2 + len(samples) // 8000))
            turns.append(Said("ABCDE"[place], time, samples, words))
            time = turns[-1].end + rng.uniform(0.1, 0.4)
    first, laugh = turns[0], rng.normal(0, 300, sounds.RATE // 2).round().astype(np.int16)
    other = next(turn for turn in turns if turn.agent != first.agent)
    turns.append(
        other._replace(start=first.start + 0.2, samples=other.samples[: sounds.RATE], words=["yeah"])
    )
    turns.append(Said(first.agent, time, laugh, []))
    return sorted(turns, key=lambda turn: turn.start)
