"""One line of voxark doctor, and how all of them are printed."""

import json
from dataclasses import asdict, dataclass

from voxark.errors import VoxarkError
from voxark.overview import fill

OK, WARNING, MISSING = "OK", "WARNING", "MISSING"
_COLOURS = {OK: "\033[32m", WARNING: "\033[33m", MISSING: "\033[36m"}
_NAME_WIDTH = 18


@dataclass(frozen=True)
class Finding:
    """What was found of one thing: ``status`` OK, WARNING or MISSING.

    ``advice`` says what to do unless it is OK. An ``essential`` thing that is not OK makes the exit status 1.
    """

    section: str
    name: str
    status: str
    value: str
    advice: str = ""
    essential: bool = False


def guarded(section, name, look, essential=False, advice=""):
    """The finding that ``look()`` returns, or one that names the exception: no check can end the others."""
    try:
        return look()
    except Exception as error:
        text = str(error).splitlines()[0] if str(error) else ""
        reason = text if isinstance(error, VoxarkError) else f"{type(error).__name__}: {text}"
        return Finding(section, name, WARNING, reason, advice or "see the message", essential)


def is_healthy(findings):
    """Whether nothing essential is wrong."""
    return not _wrong(findings)


def _wrong(findings):
    return [finding for finding in findings if finding.essential and finding.status != OK]


def as_json(findings):
    """A JSON object: ``healthy`` and ``findings``, a list of objects with the fields of :class:`Finding`."""
    content = {"healthy": is_healthy(findings), "findings": [asdict(finding) for finding in findings]}
    return json.dumps(content, indent=2) + "\n"


def as_text(findings, width=None, colours=False):
    """The lines, by section, and a summary; at most ``width`` columns wide, or None: one line a finding."""
    lines, section = [], None
    for finding in findings:
        if finding.section != section:
            section = finding.section
            lines += [""] * bool(lines) + [section]
        lines.append(_line(finding, width, colours))
    number = {
        status: sum(finding.status == status for finding in findings) for status in (OK, WARNING, MISSING)
    }
    wrong = [finding.name for finding in _wrong(findings)]
    verdict = f"Essential and wrong: {', '.join(wrong)}." if wrong else "Nothing essential is wrong."
    counts = f"{number[OK]} OK, {number[WARNING]} WARNING, {number[MISSING]} MISSING."
    return "\n".join([*lines, "", fill(f"{verdict} {counts}", width)]) + "\n"


def _line(finding, width, colours):
    head = f"  {finding.status:<7}  {finding.name:<{_NAME_WIDTH}}  "
    text = finding.value + (f" -> {finding.advice}" if finding.advice else "")
    if width is None:
        text = head + text
    elif width >= 2 * len(head):
        text = fill(text, width, head, " " * len(head))
    else:
        text = head.rstrip() + "\n" + fill(text, width, "      ", "      ")
    if colours:
        return text.replace(finding.status, f"{_COLOURS[finding.status]}{finding.status}\033[0m", 1)
    return text
