"""Scripts that make a shell complete voxark's command lines, with all options written into them.

They are made of the declarations of the programs and the help texts of the scripts, and start no program when
the TAB key is pressed. :func:`script` is what ``voxark completion`` prints.
"""

from voxark.completion import bash, fish, zsh
from voxark.completion.commands import program_command, script_commands

_SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}


def script(shell, programs, words, root):
    """The script for ``shell``: bash, zsh or fish.

    programs : list of voxark.command_line.Program
    words : dict of the words that voxark itself takes, by the word before; "" for the first
    root : folder of the checkout, whose steps, tools and recipes are completed, too, or None
    """
    standard = [option for option in programs[0].options.values() if option.standard]
    return _SHELLS[shell].script(
        [program_command(program) for program in programs],
        program_command(programs[0], standard),
        script_commands(root) if root else [],
        words,
        root or "",
    )
