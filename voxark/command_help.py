"""What programs and scripts say of themselves, read from their sources: nothing is imported or run.

A program of bin/ is a Python file that begins with its help text; a script of steps/, utils/ or egs/ begins
with comments (shell) or with a docstring (Python), and a shell script may have its help in ``help_message``.
"""

import ast
import os
import re

_LARGEST_SOURCE = 1 << 18  # bytes; a folder of programs that pip filled may hold anything
_SENTENCE_END = re.compile(r"[.!?](?=\s+[A-Z`]|$)")


def checkout_of(program):
    """The folder of the checkout that a program of bin/ belongs to; None for one that pip has installed."""
    root = os.path.dirname(os.path.dirname(os.path.realpath(program)))
    return root if os.path.isfile(os.path.join(root, "path.sh")) else None


def source_of(path):
    """The text of a script; None for what is none (a folder, a binary, an unreadable file)."""
    try:
        with open(path, "rb") as file:
            if file.read(2) != b"#!":
                return None
            return "#!" + file.read(_LARGEST_SOURCE).decode("utf-8", "replace")
    except OSError:
        return None


def programs_of(folder):
    """name -> source of voxark's programs in a folder, which may hold others (an environment's bin/)."""
    found = {}
    for name in sorted(os.listdir(folder)):
        text = source_of(os.path.join(folder, name))
        if text is not None and re.search(r"^from voxark import cli\b", text, re.MULTILINE):
            found[name] = text
    return found


def scripts_of(root, *folders):
    """path below ``root`` -> source of the executable scripts in some folders of a checkout.

    They are sorted by name in each folder, but run.sh comes first.
    """
    found = {}
    for folder in folders:
        names = os.listdir(os.path.join(root, folder)) if os.path.isdir(os.path.join(root, folder)) else []
        for name in sorted(names, key=lambda name: (name != "run.sh", name)):
            path = os.path.join(root, folder, name)
            text = source_of(path) if os.access(path, os.X_OK) else None
            if text is not None:
                found[f"{folder}/{name}"] = text
    return found


def recipe_folders(root):
    """The folders below egs/ of a checkout, as paths below ``root``."""
    egs = os.path.join(root, "egs")
    names = sorted(os.listdir(egs)) if os.path.isdir(egs) else []
    return [f"egs/{name}" for name in names if os.path.isdir(os.path.join(egs, name))]


def _is_python(source):
    return "python" in source.split("\n", 1)[0]


def introduction(source):
    """The text that a script begins with: a docstring, or the comments below its first line."""
    if _is_python(source):
        try:
            return ast.get_docstring(ast.parse(source)) or ""
        except SyntaxError:
            return ""
    lines = []
    for line in source.split("\n")[1:]:
        if not line.startswith("#"):
            break
        if not line.startswith("# shellcheck"):
            lines.append(line[1:].removeprefix(" "))
    return "\n".join(lines)


def sourced_by(source, root):
    """The text of those files of utils/ in the checkout ``root`` that a shell script, or one of them, sources."""
    texts = []
    for name in re.findall(r'^\. "[^"\n]*"?/(?:\.\./)?utils/(\w+\.sh)"', source, re.MULTILINE):
        try:
            with open(os.path.join(root, "utils", name), encoding="utf-8", errors="replace") as file:
                texts.append(file.read())
        except OSError:
            continue  # the script itself will complain
        texts.append(sourced_by(texts[-1], root))
    return "\n".join(texts)


def help_text(source, sourced=""):
    """What ``--help`` prints of a script: help_message, or the introduction.

    Variables are not filled in, but those that are a line of their own and that ``sourced`` gives a value.
    """
    message = None if _is_python(source) else _assigned("help_message", source)
    if message is None:
        return introduction(source)
    return re.sub(r"^\$(\w+)$", lambda name: _assigned(name[1], sourced) or "", message, flags=re.MULTILINE)


def _assigned(name, source):
    """The text in double quotes that a shell script assigns to a variable, as it stands; None if none."""
    found = re.search(
        rf'^(?:declare -r |readonly )?{name}="((?:[^"\\]|\\.)*)"', source, re.MULTILINE | re.DOTALL
    )
    return found and found[1]


def first_sentence(text):
    """The first sentence of a text, on one line."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    end = _SENTENCE_END.search(paragraph)
    sentence = paragraph[: end.end()] if end else paragraph
    return sentence.replace("; --help says more", "")
