"""local/ami: small trees in the publisher's layout to data directories, damaged trees to clear errors."""

import re
import shutil
from collections import Counter

import numpy as np
import pytest
from corpora import ami, server, sounds
from helpers import ROOT, run_script, shared_data, shell

from voxark import audio, datadir
from voxark.datadir_check import check

FOLDER = ROOT / "local" / "ami"
NOTES = "ami_public_manual_1.6.2"
SMALL = ("--partial=true", "--trial-min-seconds=1.5")


def prepare(corpus, out, *options, **more):
    return run_script(FOLDER / "prepare_data.py", *options, corpus, out, **more)


def failed(corpus, out, *options):
    """The error of a run that must fail and leave nothing behind."""
    done = prepare(corpus, out, *options, check=False)
    assert done.returncode == 1
    assert not out.exists() or not any(out.iterdir())
    return done.stderr.splitlines()[-1]


def table(folder, name, parse=datadir.parse_text):
    return datadir.read_table(folder / name, parse)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A small tree of synthetic voices; tests that change it take a copy."""
    groups = {"ES2002": "a", "TS3005": "a", "IS1008": "a", "ES2004": "ab"}
    return ami.build(tmp_path_factory.mktemp("ami"), groups, num_turns=2, num_talkers=2)


@pytest.fixture(scope="module")
def prepared(original, tmp_path_factory):
    """What is made of it, and what was said."""
    out = tmp_path_factory.mktemp("prepared")
    return out, prepare(original, out, *SMALL).stderr


@pytest.fixture
def tree(original, tmp_path):
    shutil.copytree(original, tmp_path / "corpus")
    return tmp_path / "corpus"


def notes(tree, name):
    return tree / NOTES / name


def test_small_tree(original, prepared):
    out, said = prepared
    assert "5 meetings with recordings, expected 170; 15 recordings, expected 851" in said
    assert (
        "2 test speakers, expected 16; 24 training segments of both microphones, expected 200,001 or more"
        in said
    )
    for name, num_meetings in (("train", 2), ("dev", 1), ("test", 2)):
        folder = out / name
        assert check(folder, need_feats=False) == []
        # in each meeting 2 talkers with 2 turns, one turn into which another talks, and a laugh without words
        assert len(table(folder, "utt2spk")) == 2 * 5 * num_meetings
        assert Counter(table(folder, "dropped.prepare").values()) == {"no words": 2 * num_meetings}
        assert Counter(table(folder, "utt2mic").values()) == dict.fromkeys(("ihm", "sdm"), 5 * num_meetings)
        assert set(Counter(table(folder, "utt2uniq").values()).values()) == {2}  # both microphones
        genders = table(folder, "spk2gender")
        assert all(speaker[0].lower() == gender for speaker, gender in genders.items())
    assert set(table(out / "train", "utt2room").values()) == {"edinburgh", "tno"}
    assert set(table(out / "dev", "utt2room").values()) == {"idiap"}
    assert set(table(out / "test", "utt2meeting").values()) == {"ES2004a", "ES2004b"}


def test_segments_are_the_annotated_turns(original, prepared):
    folder = prepared[0] / "test"
    segments = datadir.read_table(folder / "segments")
    wavs, mics, speakers = table(folder, "wav.scp"), table(folder, "utt2mic"), table(folder, "utt2spk")
    for key, segment in segments.items():
        speaker, meeting, mic, start, end = key.split("-")
        assert (speakers[key], mics[key]) == (speaker, mic) and segment.recording.startswith(
            f"{meeting}-{mic}"
        )
        assert (round(100 * segment.start), round(100 * segment.end)) == (int(start), int(end))
        stream = "Array1-01" if mic == "sdm" else f"Headset-{segment.recording[-1]}"
        path = original / "amicorpus" / meeting / "audio" / f"{meeting}.{stream}.wav"
        assert wavs[segment.recording] == str(path)
    text = (original / NOTES / "segments" / "ES2004a.A.segments.xml").read_text()
    times = [
        (float(a), float(b))
        for a, b in re.findall(r'transcriber_start="(.*?)" transcriber_end="(.*?)"', text)
    ]
    own = sorted((s.start, s.end) for s in segments.values() if s.recording == "ES2004a-ihm-0")
    assert len(own) == len(times) - (
        "laugh" in (original / NOTES / "words" / "ES2004a.A.words.xml").read_text()
    )
    assert set(own) <= set(times)


def test_words_are_those_of_the_annotations(original, prepared):
    said = table(prepared[0] / "test", "text")
    words = (original / NOTES / "words" / "ES2004a.A.words.xml").read_text()
    spoken = re.findall(r'<w nite:id="[^"]*" starttime="[^"]*" endtime="[^"]*">(.*?)</w>', words)
    keys = [
        key
        for key, reco in table(prepared[0] / "test", "segments").items()
        if reco.startswith("ES2004a-ihm-0 ")
    ]
    assert " ".join(said[key] for key in sorted(keys, key=lambda key: key.split("-")[3])).split() == spoken
    for key in keys:
        assert said[key.replace("-ihm-", "-sdm-")] == said[key]


def test_the_own_headset_is_louder_than_the_other(original, prepared):
    """The channel of meetings.xml leads to the recording in which the talker speaks."""
    for key, segment in datadir.read_table(prepared[0] / "test" / "segments").items():
        if "-ihm-" not in key or float(table(prepared[0] / "test", "utt2overlap")[key]) > 0:
            continue
        channel, meeting = int(segment.recording[-1]), segment.recording[:7]
        power = []
        for number in (channel, 1 - channel):
            path = original / "amicorpus" / meeting / "audio" / f"{meeting}.Headset-{number}.wav"
            rate, samples = audio.read_audio(path.read_bytes(), path)
            power.append(
                np.mean(samples[int(segment.start * rate) : int(segment.end * rate)].astype(float) ** 2)
            )
        assert power[0] > 100 * power[1]


def test_overlap(original, prepared, tmp_path):
    overlap = {key: float(value) for key, value in table(prepared[0] / "test", "utt2overlap").items()}
    assert sum(value > 0 for value in overlap.values()) == 8  # two talkers of a meeting, in two microphones
    segments = datadir.read_table(prepared[0] / "test" / "segments")
    for key, value in overlap.items():
        own = segments[key]
        others = [
            s
            for other, s in segments.items()
            if "-ihm-" in other
            and s.recording[:7] == own.recording[:7]
            and other.split("-")[0] != key.split("-")[0]
        ]
        inside = sum(max(0.0, min(own.end, s.end) - max(own.start, s.start)) for s in others)
        assert value == pytest.approx(inside / (own.end - own.start), abs=0.006)
    prepare(original, tmp_path, *SMALL, "--max-overlap=0.2")
    gone = {key for key, value in overlap.items() if value > 0.2 and "-sdm-" in key}
    assert gone and gone == overlap.keys() - table(tmp_path / "test", "utt2spk").keys()
    ledger = table(tmp_path / "test", "dropped.prepare")
    assert {key for key, reason in ledger.items() if reason == "others talk in more than 0.2 of it"} == gone


def trials(folder):
    return datadir.read_trials(folder / "trials")


def pairs_of(folder):
    """The pairs of the trials, each in sorted order, sorted."""
    return sorted(tuple(sorted(trial[:2])) for trial in trials(folder))


def test_trials(original, prepared, tmp_path):
    out = prepared[0]
    speakers, meetings, mics = (table(out / "test", name) for name in ("utt2spk", "utt2meeting", "utt2mic"))
    seconds, overlap = table(out / "test", "utt2dur", float), table(out / "test", "utt2overlap", float)
    found = trials(out)
    for enroll, test, label in found:
        assert label == ("target" if speakers[enroll] == speakers[test] else "nontarget")
        assert meetings[enroll] != meetings[test]
        assert all(seconds[key] >= 1.5 and overlap[key] <= 0.105 for key in (enroll, test))
    usable = [key for key in speakers if seconds[key] >= 1.5 and overlap[key] <= 0.1]
    pairs = [(a, b) for a in usable for b in usable if a < b and meetings[a] != meetings[b]]
    assert pairs_of(out) == sorted(pairs)
    assert {(mics[trial.enroll], mics[trial.test]) for trial in found} >= {("ihm", "sdm"), ("ihm", "ihm")}
    prepare(original, tmp_path / "same", *SMALL, "--trial-mics=same")
    assert pairs_of(tmp_path / "same") == sorted((a, b) for a, b in pairs if mics[a] == mics[b])
    prepare(original, tmp_path / "cross", *SMALL, "--trial-mics=cross")
    assert pairs_of(tmp_path / "cross") == sorted((a, b) for a, b in pairs if mics[a] != mics[b])
    prepare(original, tmp_path / "all", *SMALL, "--other-meeting=false", "--trial-mics=cross")
    names = pairs_of(tmp_path / "all")
    assert not any(
        a.replace("ihm", "sdm") == b.replace("ihm", "sdm") for a, b in names
    )  # the same words twice
    assert any(meetings[a] == meetings[b] for a, b in names)


def test_sample_of_trials_depends_on_the_seed_alone(original, tmp_path):
    lists = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        prepare(original, tmp_path / name, *SMALL, "--targets-per-speaker=3", "--nontargets-per-speaker=2",
                f"--srand={seed}")  # fmt: skip
        lists.append((tmp_path / name / "trials").read_text())
    assert Counter(line.split()[2] for line in lists[0].splitlines()) == {"target": 6, "nontarget": 4}
    assert lists[0] == lists[1] != lists[2]


def test_options_choose_microphones_and_segments(original, tmp_path):
    prepare(original, tmp_path / "a", *SMALL, "--mics=ihm", "--need-words=false")
    assert set(table(tmp_path / "a" / "test", "utt2mic").values()) == {"ihm"}
    assert (tmp_path / "a" / "test" / "dropped.prepare").read_bytes() == b""
    assert "" in table(tmp_path / "a" / "test", "text").values()  # the laughs
    prepare(original, tmp_path / "b", *SMALL, "--mics=sdm", "--min-seconds=1.8")
    dropped = Counter(table(tmp_path / "b" / "train", "dropped.prepare").values())
    assert dropped["shorter than 1.8 s"] > 0
    assert min(table(tmp_path / "b" / "train", "utt2dur", float).values()) >= 1.8
    assert "--mics=mdm: expected ihm, sdm or both" in failed(original, tmp_path / "c", "--mics=mdm")
    assert "no test utterance is long enough" in failed(
        original, tmp_path / "d", *SMALL, "--trial-min-seconds=60"
    )


def test_real_speech(tmp_path):
    if not shared_data("ami_excerpts").is_dir():
        pytest.skip(f"recorded speech is absent: {shared_data('ami_excerpts')}")
    ami.build(tmp_path, {"ES2002": "a", "ES2004": "ab"}, num_turns=2, num_talkers=2, shared=shared_data())
    prepare(tmp_path, tmp_path / "out", *SMALL)
    assert check(tmp_path / "out" / "test", need_feats=False) == []
    assert not (tmp_path / "out" / "dev").exists()


# -------------------------------------------------------------------------------------- the publisher's facts


def test_the_partition():
    rows = [line.split() for line in (FOLDER / "meetings.txt").read_text().splitlines() if line[0] != "#"]
    assert Counter(row[1] for row in rows) == {"train": 136, "dev": 18, "test": 16, "none": 1}
    assert len({row[0] for row in rows}) == 171 and sum(int(row[2]) for row in rows) == 687
    assert sum(row[3] == "yes" for row in rows) == 169
    sets = {}
    for meeting, own, _, _ in rows:
        sets.setdefault(own, set()).add(meeting[:6])
    assert sets["test"] == {"ES2004", "IS1009", "TS3003", "EN2002"} and sets["none"] == {"IB4005"}
    assert sets["dev"] == {
        "ES2011",
        "IS1008",
        "TS3004",
        "IB4001",
        "IB4002",
        "IB4003",
        "IB4004",
        "IB4010",
        "IB4011",
    }
    assert not sets["train"] & (sets["dev"] | sets["test"])


def test_the_whole_corpus_in_outline(tmp_path):
    """All 171 meetings with the publisher's files: links to one recording, and more segments than 200,000."""
    rows = [line.split() for line in (FOLDER / "meetings.txt").read_text().splitlines() if line[0] != "#"]
    tiny = tmp_path / "tiny.wav"
    tiny.write_bytes(sounds.wav(np.arange(16000 * 8, dtype=np.int16)))
    meetings, genders = {}, {}
    for name, own, number, array in rows:
        folder = tmp_path / "amicorpus" / name / "audio"
        folder.mkdir(parents=True)
        for stream in [f"Headset-{n}" for n in range(int(number))] + ["Array1-01"] * (array == "yes"):
            (folder / f"{name}.{stream}.wav").hardlink_to(tiny)
        group = name[:6] if own in ("test", "dev") else name  # the talkers of the test set are 16
        meetings[name] = [f"MEE{group}{'ABCDE'[n]}" for n in range(int(number))]
        genders.update(dict.fromkeys(meetings[name], "m"))
    for kind in ("words", "segments", "corpusResources"):
        notes(tmp_path, kind).mkdir(parents=True)
    ami.write_resources(tmp_path, meetings, genders)
    for name, own, number, _ in rows:
        turns = 200 if own == "train" and name != "ES2002a" else 3
        for agent in "ABCDE"[: int(number)]:
            write_plain(tmp_path, name, agent, turns)
    done = prepare(tmp_path, tmp_path / "out", "--trial-max-overlap=1", "--trial-min-seconds=0.1")
    assert "meetings in none of the sets, left out: ib4005" in done.stderr
    # 4 talkers of 133 meetings, 5 of 3; 200 segments but in one meeting; two microphones but in two meetings
    expected = 2 * (200 * (133 * 4 + 15 - 4) + 12) - 2 * 800
    assert expected == 215_624
    assert len(table(tmp_path / "out" / "train", "utt2spk")) == expected
    assert len(table(tmp_path / "out" / "test", "spk2gender")) == 16
    lost = table(tmp_path / "out" / "train", "dropped.prepare")
    assert Counter(lost.values()) == {"no recording": 1600}
    assert {key.split("-")[1] for key in lost} == {"IS1003b", "IS1007d"}


def write_plain(tree, meeting, agent, number):
    """Annotations of a talker with ``number`` segments of one word, which follow each other closely."""
    words, segments, prefix = [], [], f"{meeting}.{agent}"
    for n in range(number):
        start = 0.03 * n
        edges = [f'start="{start:.2f}"', f'end="{start + 0.2:.2f}"']
        words.append(f'<w nite:id="{prefix}.words{n}" {" ".join(edges)}>no</w>')
        times = " ".join(f"transcriber_{edge}" for edge in edges)
        child = f'<nite:child href="{prefix}.words.xml#id({prefix}.words{n})"/>'
        segments.append(f"<segment {times}>{child}</segment>")
    for kind, rows in (("words", words), ("segments", segments)):
        text = f"{ami.HEAD}<nite:root {ami.NITE}>{''.join(rows)}</nite:root>"
        (notes(tree, kind) / f"{prefix}.{kind}.xml").write_text(text)


def test_a_file_less_than_the_publisher_has_is_named(tree, tmp_path):
    lost = tree / "amicorpus" / "ES2004a" / "audio" / "ES2004a.Headset-1.wav"
    lost.unlink()
    notes(tree, "words/ES2004b.B.words.xml").unlink()
    shutil.rmtree(tree / "amicorpus" / "IS1008a")
    done = prepare(tree, tmp_path / "out", *SMALL)
    assert "4 meetings with recordings, expected 170" in done.stderr
    assert "missing: amicorpus/ES2002a/audio/ES2002a.Headset-2.wav, " in done.stderr  # the tree has but two
    assert (
        "amicorpus/ES2004a/audio/ES2004a.Headset-1.wav" in done.stderr
        and "words/ES2004b.B.words.xml" in done.stderr
    )
    said = failed(tree, tmp_path / "strict")
    assert "expected 170; 11 recordings, expected 851; 4 meetings with annotations, expected 170" in said
    ledger = table(tmp_path / "out" / "test", "dropped.prepare")
    own = {key for key, reason in ledger.items() if reason == "no recording"}
    assert own and all(key.split("-")[1:3] == ["ES2004a", "ihm"] for key in own)
    # nothing is known of what B of ES2004b says
    names = table(tmp_path / "out" / "test", "utt2spk").items()
    assert {key.split("-")[1] for key, speaker in names if speaker.endswith("131")} == {"ES2004a"}


# -------------------------------------------------------------------------------------- damaged and odd trees


def test_a_truncated_recording(tree, tmp_path):
    path = tree / "amicorpus" / "ES2004a" / "audio" / "ES2004a.Array1-01.wav"
    path.write_bytes(path.read_bytes()[:-1000])
    done = prepare(tree, tmp_path, *SMALL)
    assert f"{path}: truncated wav: its header announces" in done.stderr
    assert "ES2004a-sdm" not in (tmp_path / "test" / "wav.scp").read_text()
    reasons = {
        key: why for key, why in table(tmp_path / "test", "dropped.prepare").items() if "-ES2004a-sdm-" in key
    }
    assert reasons and set(reasons.values()) == {"no recording"}


def test_a_recording_of_several_channels(tree, tmp_path):
    path = tree / "amicorpus" / "ES2004a" / "audio" / "ES2004a.Array1-01.wav"
    rate, samples = audio.read_audio(path.read_bytes(), path)
    path.write_bytes(audio.write_wav(rate, np.stack((samples, 0 * samples), axis=1)))
    done = prepare(tree, tmp_path, *SMALL)
    assert f"{path}: has several channels; the first is used" in done.stderr
    assert check(tmp_path / "test", need_feats=False) == []
    rows = table(tmp_path / "test", "segments")
    assert {key.split("-")[1] + key.split("-")[2] for key, row in rows.items() if len(row.split()) == 4} == {
        "ES2004asdm"
    }


def change(path, old, new, count=1):
    text = path.read_text(encoding="latin-1")
    assert old in text
    path.write_text(text.replace(old, new, count), encoding="latin-1")
    return text[: text.index(old)].count("\n") + 1  # the line


@pytest.mark.parametrize(("name", "old", "new", "said"), [
    ("segments/ES2004a.A.segments.xml", "</segment>", "", "malformed XML: mismatched tag"),
    ("words/ES2004a.A.words.xml", "</w>", "<", "malformed XML: not well-formed"),
    ("segments/ES2004a.A.segments.xml", 'transcriber_end="', 'transcriber_end="x', "<segment> is 'x"),
    ("segments/ES2004a.A.segments.xml", "transcriber_start", "begin", "<segment> has no transcriber_start"),
    ("segments/ES2004a.A.segments.xml", "#id(", "#(", "the pointer 'ES2004a.A.words.xml#(ES"),
    ("corpusResources/meetings.xml", 'nxt_agent="A"', 'nxt_agent="B"', "the agent B is there twice"),
    ("corpusResources/meetings.xml", ' global_name="', ' name="', "<speaker> has no global_name"),
    ("corpusResources/participants.xml", 'sex="M"', 'sex="N"', "is 'N', not M or F"),
], ids=lambda value: value.split("/")[-1][:12])  # fmt: skip
def test_bad_annotations_are_named_with_their_line(tree, tmp_path, name, old, new, said):
    path = notes(tree, name)
    line = change(path, old, new)
    found = failed(tree, tmp_path / "out", *SMALL)
    place = re.search(re.escape(str(path)) + r":(\d+): ", found)
    assert said in found and place, found
    assert line <= int(place[1]) <= (line + 2 if new else len(path.read_text().splitlines()))


def test_a_meeting_that_stops_in_the_middle(tree, tmp_path):
    path = notes(tree, "words/ES2004a.A.words.xml")
    path.write_bytes(path.read_bytes()[:-40])
    assert f"{path}:" in failed(tree, tmp_path / "out", *SMALL)
    path.write_bytes(b"")
    assert f"{path}:1: malformed XML: no element found" in failed(tree, tmp_path / "out", *SMALL)


def test_entities_are_refused(tree, tmp_path):
    """Neither are files read that an entity names, nor are entities expanded without end."""
    secret = tmp_path / "secret"
    secret.write_text("hidden")
    path = notes(tree, "words/ES2004a.A.words.xml")
    for entity in (f'<!ENTITY x SYSTEM "{secret}">', '<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;">'):
        shutil.copy(notes(tree, "words/ES2004a.B.words.xml"), path)
        change(path, "<nite:root", f"<!DOCTYPE r [{entity}]>\n<nite:root")
        assert f"{path}:2: declares the entity 'x'" in failed(tree, tmp_path / "out", *SMALL)


def test_pointers_at_words_that_are_not_there(tree, tmp_path):
    path = notes(tree, "words/ES2004a.A.words.xml")
    change(path, 'nite:id="ES2004a.A.words0"', 'nite:id="ES2004a.A.wordsX"')
    done = prepare(tree, tmp_path, *SMALL)
    assert f"{path}: lacks the words ES2004a.A.words0 to " in done.stderr


def test_names_in_latin_1_and_without_a_namespace_prefix(tree, tmp_path):
    path = notes(tree, "words/ES2004a.A.words.xml")
    words = re.findall(r">(\w+)</w>", path.read_text())
    change(path, f">{words[0]}</w>", ">caf\xe9</w>")
    prepare(tree, tmp_path / "a", *SMALL)
    assert "caf\xe9" in (tmp_path / "a" / "test" / "text").read_text(encoding="utf-8")
    text = path.read_text(encoding="latin-1")
    path.write_text(text.replace("xmlns:nite", "xmlns:n").replace("nite:", "n:"), encoding="latin-1")
    prepare(tree, tmp_path / "b", *SMALL)
    assert (tmp_path / "a" / "test" / "text").read_bytes() == (tmp_path / "b" / "test" / "text").read_bytes()


def test_a_speaker_of_the_test_set_is_not_trained_on(tree, tmp_path):
    names = re.findall('global_name="(.*?)"', notes(tree, "corpusResources/meetings.xml").read_text())
    trained, tested = names[0], names[-1]
    change(notes(tree, "corpusResources/meetings.xml"), trained, tested)
    done = prepare(tree, tmp_path, *SMALL)
    assert f"1 speakers of train are in test too, and are left out of train: {tested}" in done.stderr
    assert tested not in (tmp_path / "train" / "utt2spk").read_text()
    reasons = table(tmp_path / "train", "dropped.prepare")
    assert "speaker of test" in {why for key, why in reasons.items() if key.startswith(tested)}


def test_turns_at_and_behind_the_end_of_a_recording(tree, tmp_path):
    path = notes(tree, "segments/ES2004a.A.segments.xml")
    ends = re.findall('transcriber_end="(.*?)"', path.read_text())
    change(path, f'transcriber_end="{ends[-2]}"', 'transcriber_end="500.0"')
    child = '<nite:child href="x#id(ES2004a.A.words0)"/>'
    late = f'<segment nite:id="z" transcriber_start="600" transcriber_end="601">{child}</segment>'
    change(path, "</nite:root>", f"{late}</nite:root>")
    prepare(tree, tmp_path, *SMALL)
    assert check(tmp_path / "test", need_feats=False) == []
    lengths = datadir.read_table(tmp_path / "test" / "reco2dur")
    late = [
        segment
        for key, segment in datadir.read_table(tmp_path / "test" / "segments").items()
        if "-0050000" in key
    ]
    assert len(late) == 2 and all(s.end == pytest.approx(lengths[s.recording], abs=1e-3) for s in late)
    assert (
        Counter(table(tmp_path / "test", "dropped.prepare").values())["behind the end of the recording"] == 2
    )


def test_other_files_and_letters(tree, tmp_path):
    prepare(tree, tmp_path / "plain", *SMALL)
    folder = tree / "amicorpus" / "ES2004a" / "audio"
    (folder / "ES2004a.Mix-Headset.wav").write_bytes(b"of no interest")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "ES2004a.Headset-0.wav").rename(folder / "ES2004a.HEADSET-0.WAV")
    notes(tree, "words").rename(notes(tree, "Words"))
    (tree / "amicorpus").rename(tree / "AMICORPUS")
    done = prepare(tree, tmp_path / "out", *SMALL)
    assert "15 recordings, 2 other files" in done.stderr
    for name in ("utt2spk", "text", "segments", "spk2gender"):
        assert (tmp_path / "out" / "test" / name).read_text() == (
            tmp_path / "plain" / "test" / name
        ).read_text()
    shutil.copy(
        folder.parents[2] / "AMICORPUS/ES2004b/audio/ES2004b.Headset-0.wav", tree / "AMICORPUS/ES2004a/audio"
    )
    assert "ES2004b.Headset-0.wav: does not lie where its name says" in failed(
        tree, tmp_path / "again", *SMALL
    )


def test_a_recording_that_is_there_twice(tree, tmp_path):
    shutil.copytree(tree / "amicorpus" / "ES2004a", tree / "amicorpus" / "copy" / "ES2004a")
    assert "are the same recording: remove one of them" in failed(tree, tmp_path / "out", *SMALL)


def test_annotations_elsewhere(tree, tmp_path):
    (tree / NOTES).rename(tmp_path / "notes")
    assert "no annotations there" in failed(tree, tmp_path / "out", *SMALL)
    prepare(tree, tmp_path / "out", *SMALL, f"--annotations={tmp_path / 'notes'}")
    assert check(tmp_path / "out" / "train", need_feats=False) == []
    (tmp_path / "notes").rename(tmp_path / NOTES)  # beside the corpus
    prepare(tree / "amicorpus", tmp_path / "other", *SMALL, f"--annotations={tmp_path / NOTES}")
    prepare(tree, tmp_path / "third", *SMALL)
    for name in ("other", "third"):
        assert (tmp_path / name / "trials").read_bytes() == (tmp_path / "out" / "trials").read_bytes()


def test_no_recordings(tmp_path):
    assert "holds no MEETING/audio/MEETING.Headset-N.wav" in failed(tmp_path, tmp_path / "out")


# --------------------------------------------------------------------------------------------------- download


@pytest.fixture
def publisher(original, tmp_path):
    """A server with the files of ES2004a, laid out as the publisher's."""
    folder = tmp_path / "served"
    shutil.copytree(original / "amicorpus" / "ES2004a", folder / "AMICorpusMirror" / "amicorpus" / "ES2004a")
    (folder / "AMICorpusAnnotations").mkdir()
    shutil.make_archive(str(folder / "AMICorpusAnnotations" / NOTES), "zip", original / NOTES)
    with server.serving(folder) as running:
        yield running


def download(publisher, out, *options, check=True):
    words = [
        FOLDER / "download.sh",
        "--url",
        publisher.url,
        "--retry-delay",
        "0",
        "--retries",
        "3",
        *options,
        out,
    ]
    return shell(" ".join(f"'{word}'" for word in [*words, "ES2004a"]), check=check)


def test_download(original, publisher, tmp_path):
    out = tmp_path / "out"
    publisher.cut = [50_000]
    done = download(publisher, out, "--mics", "sdm")
    assert "ES2004a: done" in done.stderr
    assert [wanted for _, wanted in publisher.requests] == [None, "bytes=50000-", None]
    assert sorted(path.name for path in out.iterdir()) == [NOTES, "amicorpus"]
    same = [path for path in out.rglob("*") if path.is_file()]
    assert len(same) == 1 + len(list((original / NOTES).rglob("*.xml")))
    assert all(path.read_bytes() == (original / path.relative_to(out)).read_bytes() for path in same)
    download(publisher, out, "--mics", "sdm")
    assert len(publisher.requests) == 3
    # four headsets are fetched, of which this small meeting has two
    done = download(publisher, out, "--annotations", "false", check=False)
    assert done.returncode == 1 and "ES2004a.Headset-2.wav: cannot be fetched" in done.stderr
    assert (out / "amicorpus/ES2004a/audio/ES2004a.Headset-1.wav").is_file() and "404" in done.stderr


@pytest.mark.parametrize("name", ["AMICorpusMirror/amicorpus/ES2004a/audio/ES2004a.Array1-01.wav",
                                  f"AMICorpusAnnotations/{NOTES}.zip"], ids=["wav", "zip"])  # fmt: skip
def test_a_download_that_is_not_whole(publisher, tmp_path, name):
    path, out = publisher.folder / name, tmp_path / "out"
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    done = download(publisher, out, "--mics", "sdm", check=False)
    assert done.returncode == 1 and f"{path.name}.bad" in done.stderr
    assert not any(file.name == path.name for file in out.rglob("*"))
    path.write_bytes(good)
    download(publisher, out, "--mics", "sdm")
    assert (out / NOTES / "words").is_dir()
    assert len(list(out.rglob("*.wav"))) == 1


def test_wrong_options_of_download(tmp_path):
    done = shell(f"{FOLDER / 'download.sh'} --mics mdm {tmp_path}", check=False)
    assert done.returncode == 1 and "'mdm' is none of ihm, sdm and mix" in done.stderr
    done = shell(f"{FOLDER / 'download.sh'} {tmp_path} ES2001a", check=False)
    assert done.returncode == 1 and "'ES2001a' is no meeting of AMI" in done.stderr
