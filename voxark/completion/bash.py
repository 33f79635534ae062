"""Completion for bash."""

import shlex

_FUNCTIONS = r"""
# Sets _voxark_words to the options of the command $1 (its path, as typed), and _voxark_program for a program.
_voxark_find() {
  local path=${1/#\~\//$HOME/} folder
  if _voxark_options "${1##*/}"; then
    _voxark_words="$_voxark_words $_voxark_standard" _voxark_program=true
    return 0
  fi
  path=$(type -P -- "$path") && folder=$(cd -- "$(dirname -- "$path")" && pwd -P) || return 1
  _voxark_options "${folder#"$_voxark_root"/}/${path##*/}"
}

# Sets COMPREPLY to those of the values $1 (a|b|c) that begin with $2, with $3 before them.
_voxark_offer() {
  local value
  for value in ${1//|/ }; do
    [[ $value != "$2"* ]] || COMPREPLY+=("$3$value")
  done
}

# Sets COMPREPLY to the option names that begin with $1.
_voxark_names() {
  local word typed=${1//_/-} no=
  if [[ $typed == --no-* ]]; then no=--no-; fi
  for word in $_voxark_words; do
    case $word in
      *=*) [[ ${word%%=*}= != "$typed"* ]] || COMPREPLY+=("${word%%=*}=") ;;
      *) [[ $word != "$typed"* ]] || COMPREPLY+=("$word") ;;
    esac
    if [[ -n $no && $word == *=true\|false && $no${word:2} == "$typed"* ]]; then
      word=${word%%=*}
      COMPREPLY+=("$no${word:2}")
    fi
  done
  if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then compopt -o nospace 2>/dev/null || true; fi
}

# Where COMPREPLY stays empty, bash itself completes a file name; it cuts words at = and :.
_voxark_complete() {
  local IFS=$' \t\n' _voxark_words='' _voxark_program='' word before option='' value='' prefix='' joined=''
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
  COMPREPLY=()
  _voxark_find "$1" || return 0
  if [[ $cur == = ]]; then
    option=$prev joined=1
  elif [[ $prev == = && $COMP_CWORD -ge 3 ]]; then
    option=${COMP_WORDS[COMP_CWORD - 2]} value=$cur joined=1
  elif [[ $cur == --*=* ]]; then
    option=${cur%%=*} value=${cur#*=} joined=1
    prefix=$option=
  elif [[ $prev == --* && $cur != -* ]]; then
    option=$prev value=$cur
  elif [[ $cur == -* ]]; then
    _voxark_names "$cur"
    return 0
  fi
  if [[ $option == --* ]]; then
    _voxark_value
    return 0
  fi
  before=$prev
  if [[ $COMP_CWORD -eq 1 ]]; then before=; fi
  if [[ ${1##*/} == voxark ]]; then _voxark_subcommands "$before" "$cur"; fi
  # ark,scp:one.ark,two.scp
  if [[ $prev == : && $cur == *,* && $COMP_CWORD -ge 2 && ${COMP_WORDS[COMP_CWORD - 2]} == *,* ]]; then
    while IFS= read -r word; do COMPREPLY+=("${cur%,*},$word"); done < <(compgen -f -- "${cur##*,}")
    compopt -o nospace 2>/dev/null || true
  fi
}

# The value of $option, of which $value is typed; a switch of a program takes one after = only.
_voxark_value() {
  local word
  for word in $_voxark_words; do
    [[ $word == "${option//_/-}="* ]] || continue
    word=${word#*=}
    [[ -z $joined && $word == true\|false && $_voxark_program ]] || _voxark_offer "$word" "$value" "$prefix"
    break
  done
  if [[ ${#COMPREPLY[@]} -eq 0 && -n $prefix ]]; then
    while IFS= read -r word; do COMPREPLY+=("$prefix$word"); done < <(compgen -f -- "$value")
  fi
}
"""


def script(programs, standard, scripts, words, root):
    """The text for bash; see voxark.completion.script."""
    lines = [
        '# Completion of voxark for bash: eval "$(voxark completion bash)"',
        "",
        f"_voxark_root={shlex.quote(root)}",
        f"_voxark_standard={shlex.quote(_words(standard))}",
        "",
        "# Sets _voxark_words to the options of a program, or of a script by its path in the checkout.",
        "_voxark_options() {",
        "  case $1 in",
    ]
    for command in [*programs, *scripts]:
        lines.append(f"    {command.key}) _voxark_words={shlex.quote(_words(command))} ;;")
    lines += [
        "    *) return 1 ;;",
        "  esac",
        "}",
        "",
        "# Sets COMPREPLY to the words that voxark takes after $1 and that begin with $2.",
        "_voxark_subcommands() {",
        "  case $1 in",
    ]
    lines += [
        f"    {before or repr('')}) _voxark_offer '{'|'.join(after)}' \"$2\" '' ;;"
        for before, after in words.items()
    ]
    lines += ["  esac", "}", _FUNCTIONS]
    names = sorted({command.name for command in [*programs, *scripts]})
    lines += ["complete -o bashdefault -o default -F _voxark_complete \\", f"  {' '.join(names)}", ""]
    return "\n".join(lines)


def _words(command):
    return " ".join(
        f"--{option.name}={'|'.join(option.choices)}" if option.takes_value else f"--{option.name}"
        for option in command.options
    )
