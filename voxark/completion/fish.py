"""Completion for fish, with the options' help beside them."""

_FUNCTIONS = r"""
# Whether the command that is being typed is the script with this path.
function __voxark_is
    set -l typed (commandline -opc)[1]
    set -l found (command -s -- $typed; or echo $typed | string replace -r '^~/' $HOME/)
    test (realpath -- $found[1] 2>/dev/null; or echo $found[1]) = "$argv[1]"
end

# Whether so many words without dashes, the command among them, stand before the one that is being typed.
function __voxark_words
    test (count (string match -v -- '-*' (commandline -opc))) -eq $argv[1]
end
"""


def script(programs, standard, scripts, words, root):
    """The text for fish; see voxark.completion.script."""
    lines = ["# Completion of voxark for fish: voxark completion fish | source", _FUNCTIONS]
    for command in programs:
        lines += [f"complete -c {command.key}{_option(option)}" for option in command.options]
    lines += [
        f"for program in {' '.join(command.key for command in programs)}",
        *(f"    complete -c $program{_option(option)}" for option in standard.options),
        "end",
    ]
    for command in scripts:
        condition = _quoted(f"__voxark_is {_quoted(f'{root}/{command.key}')}")
        lines += [f"complete -c {command.name} -n {condition}{_option(option)}" for option in command.options]
    lines += [
        f"complete -c voxark -f -n {_quoted(_after(before))} -a {_quoted(' '.join(after))}"
        for before, after in words.items()
    ]
    return "\n".join([*lines, ""])


def _after(word):
    return f"__voxark_words 2; and __fish_seen_subcommand_from {word}" if word else "__voxark_words 1"


def _option(option):
    values = f" -x -a {_quoted(' '.join(option.choices))}" if option.choices else " -r" * option.takes_value
    return f" -l {option.name}{values} -d {_quoted(option.help)}"


def _quoted(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
