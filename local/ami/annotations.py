"""The manual annotations of the AMI corpus (NXT XML): meetings, participants, segments and words.

    corpusResources/meetings.xml         who spoke in a meeting, as which agent (A to E), into which headset
    corpusResources/participants.xml     who is a man, who a woman
    segments/MEETING.AGENT.segments.xml  stretches of speech of one talker, which point at words
    words/MEETING.AGENT.words.xml        words, punctuation, laughs, ... in order

Files are parsed as a stream. A file that declares entities is refused, and nothing outside the file is ever
read.
"""

import logging
import re
from typing import NamedTuple
from xml.parsers import expat

from voxark.errors import VoxarkError

logger = logging.getLogger("voxark.ami")

_ID = "http://nite.sourceforge.net/ id"  # nite:id, as expat writes it with a blank behind the namespace
_POINTER = re.compile(r"#id\(([^()]*)\)(?:\.\.id\(([^()]*)\))?$")


class Talker(NamedTuple):
    """A participant of a meeting; ``channel`` is the number of the headset, as text."""

    name: str
    channel: str


class Turn(NamedTuple):
    """A segment: seconds, and the ids of the first and the last word of each stretch of words in it."""

    start: float
    end: float
    spans: list


def _parse(path, start, end=None, text=None):
    """Run the handlers over an XML file: start(tag, attributes, place), end(tag), text(string).

    ``place`` is ``path:line`` for messages. Raises VoxarkError, with file and line, for what is not
    well-formed.
    """
    parser = expat.ParserCreate(namespace_separator=" ")

    def where():
        return f"{path}:{parser.CurrentLineNumber}"

    def refuse(name, *_):
        raise VoxarkError(f"{where()}: declares the entity '{name}', which no file of the corpus does")

    parser.StartElementHandler = lambda tag, attributes: start(tag, attributes, where())
    parser.EntityDeclHandler = refuse
    if end is not None:
        parser.EndElementHandler, parser.CharacterDataHandler = end, text
    try:
        with open(path, "rb") as file:
            parser.ParseFile(file)
    except expat.ExpatError as error:
        raise VoxarkError(f"{path}:{error.lineno}: malformed XML: {expat.ErrorString(error.code)}") from None
    except OSError as error:
        raise VoxarkError(f"{path}: {(error.strerror or str(error)).lower()}") from None


def _required(attributes, name, tag, place):
    """An attribute, with or without nite: before its name; VoxarkError where there is none."""
    value = attributes.get(name, attributes.get(_ID if name == "id" else name))
    if not value:
        raise VoxarkError(f"{place}: <{tag}> has no {name}")
    return value


def _seconds(attributes, name, tag, place):
    value = _required(attributes, name, tag, place)
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not 0 <= number < float("inf"):
        raise VoxarkError(f"{place}: {name} of <{tag}> is '{value}', not a time in seconds")
    return number


def read_meetings(path):
    """{meeting: {agent: Talker}} of meetings.xml."""
    meetings, current = {}, {}

    def start(tag, attributes, place):
        nonlocal current
        if tag == "meeting":
            name = _required(attributes, "observation", tag, place)
            if name in meetings:
                raise VoxarkError(f"{place}: the meeting {name} is there twice")
            current = meetings[name] = {}
        elif tag == "speaker":
            agent = _required(attributes, "nxt_agent", tag, place)
            if agent in current:
                raise VoxarkError(f"{place}: the agent {agent} is there twice")
            current[agent] = Talker(_required(attributes, "global_name", tag, place),
                                    _required(attributes, "channel", tag, place))  # fmt: skip

    _parse(path, start)
    if not meetings:
        raise VoxarkError(f"{path}: names no meeting")
    return meetings


def read_participants(path):
    """{name: gender m or f} of participants.xml; where it does not say, names begin with F or M."""
    genders = {}

    def start(tag, attributes, place):
        if tag != "participant":
            return
        name = _required(attributes, "id", tag, place)
        gender = (attributes.get("sex") or name)[0].lower()
        if gender not in ("m", "f"):
            raise VoxarkError(f"{place}: the sex of {name} is '{attributes.get('sex')}', not M or F")
        genders[name] = gender

    _parse(path, start)
    return genders


def read_segments(path):
    """The list of Turns of segments.xml, in the file's order."""
    turns = []

    def start(tag, attributes, place):
        if tag == "segment":
            times = (_seconds(attributes, f"transcriber_{edge}", tag, place) for edge in ("start", "end"))
            turns.append(Turn(*times, []))
        elif tag.endswith(" child") and turns:
            href = _required(attributes, "href", "nite:child", place)
            pointer = _POINTER.search(href)
            if pointer is None:
                raise VoxarkError(f"{place}: the pointer '{href}' is not FILE#id(FIRST)..id(LAST)")
            turns[-1].spans.append((pointer[1], pointer[2] or pointer[1]))

    _parse(path, start)
    return turns


class Words:
    """The contents of words.xml in order; laughs, punctuation and the like count as places without a word."""

    def __init__(self, path):
        self.path, self.words, self.places = path, [], {}
        self._text = None
        _parse(path, self._start, self._end, self._add)

    def _start(self, tag, attributes, place):
        name = attributes.get(_ID)
        if name is None or tag.endswith(" root"):
            return
        self.places[name] = len(self.words)
        self.words.append("")
        self._text = [] if tag == "w" and attributes.get("punc") != "true" else None

    def _add(self, text):
        if self._text is not None:
            self._text.append(text)

    def _end(self, tag):
        if tag == "w" and self._text is not None:
            self.words[-1], self._text = " ".join("".join(self._text).split()), None

    def text_of(self, turn):
        """The words of a Turn with blanks between them; a pointer at what is not there is worth a warning."""
        found = []
        for first, last in turn.spans:
            if first not in self.places or last not in self.places:
                logger.warning(
                    "%s: lacks the words %s to %s that a segment points at", self.path, first, last
                )
                continue
            found += self.words[self.places[first] : self.places[last] + 1]
        return " ".join(filter(None, found))
