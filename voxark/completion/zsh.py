"""Completion for zsh, with the options' help beside them."""

import shlex

_FUNCTIONS = r"""
# A file's name, alone or behind ark: and the like.
_voxark_file() {
  if compset -P '*[a-z],[a-z]*:'; then compset -P '*,'; else compset -P '*:'; fi
  _files
}

_voxark_complete() {
  local -a specs
  local file=${words[1]/#\~/$HOME}
  [[ $file == */* ]] || file=${commands[$file]:-$file}
  if _voxark_specs ${file:t}; then
    specs+=($_voxark_standard)
  elif ! _voxark_specs ${${file:A}#$_voxark_root/}; then
    _files
    return
  fi
  _arguments $specs '*:file:_voxark_file'
}
"""


def script(programs, standard, scripts, words, root):
    """The text for zsh; see voxark.completion.script."""
    lines = [
        '# Completion of voxark for zsh: eval "$(voxark completion zsh)"',
        "",
        "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }",
        "",
        f"_voxark_root={shlex.quote(root)}",
        "_voxark_standard=(",
        *_specs(standard, True),
        ")",
        "",
        "# Sets specs to the options of a program, or of a script by its path in the checkout.",
        "_voxark_specs() {",
        "  case $1 in",
    ]
    for command in programs:
        lines += [
            f"    {command.key}) specs=(",
            *(_subcommands(words) if command.key == "voxark" else []),
            *_specs(command, True),
            "    ) ;;",
        ]
    for command in scripts:
        lines += [f"    {command.key}) specs=(", *_specs(command, False), "    ) ;;"]
    lines += ["    *) return 1 ;;", "  esac", "}", _FUNCTIONS]
    names = sorted({command.name for command in [*programs, *scripts]})
    lines += [f"compdef _voxark_complete {' '.join(names)}", ""]
    return "\n".join(lines)


def _subcommands(words):
    commands, shells = (" ".join(words[before]) for before in ("", "completion"))
    return [f"      '1:command:({commands})'", f"      '2:shell:({shells})'"]


def _specs(command, is_program):
    """The words for _arguments: a program's switch takes a value after = only, others after a blank, too."""
    return [f"      {shlex.quote(_spec(option, is_program))}" for option in command.options]


def _spec(option, is_program):
    text = option.help.replace("[", "(").replace("]", ")")
    if not option.takes_value:
        return f"--{option.name}[{text}]"
    if option.choices == ("true", "false") and is_program:
        return f"--{option.name}=-[{text}]::value:(true false)"
    values = f"({' '.join(option.choices)})" if option.choices else "_voxark_file"
    return f"--{option.name}=[{text}]:value:{values}"
