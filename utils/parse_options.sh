# shellcheck shell=bash
# Set variables of the calling script from its command line. To be sourced, after the defaults:
#
#   nj=4
#   fbank_config=conf/fbank.conf
#   help_message="Usage: $0 [options] <data-dir>"
#   . "$(dirname "${BASH_SOURCE[0]}")/../utils/parse_options.sh"
#
# --fbank-config FILE and --fbank-config=FILE set fbank_config; the options are shifted away, so that "$@"
# holds the positional arguments afterwards. --config FILE names a file of name=value (or --name=value) lines
# with # comments; it is read first and the command line wins. A variable whose default is true or false takes
# nothing else, and --name before another option or at the end is --name true; one whose default is an integer takes no
# shell syntax. Where the script has declared `preset` and a read-only preset_folder, --preset NAME (or its default) is
# the file NAME.conf in there, which is read before all others. --help prints $help_message. `--` ends
# the options.
#
# No value is ever evaluated, and only a variable that the script has declared can be set: its name is in
# lower case (so PATH, IFS, BASH_ENV, ... are out of reach), it is set, it is no array, no integer and not
# read-only, and if it is exported the script itself assigns it (so that http_proxy and the like are no
# options either).

_po_die() {
  printf '%s: %s\n' "$0" "$1" >&2
  exit 1
}

# True if the script has declared the variable $1 as an option.
_po_declared() {
  local _po_attributes
  local _po_before='^[[:space:]]*((export|local|declare|typeset)[[:space:]]+(-[a-z]+[[:space:]]+)*)?'
  [[ $1 =~ ^[a-z][a-z0-9_]*$ && -n ${!1+set} ]] || return 1
  _po_attributes=$(declare -p "$1" 2>/dev/null) || return 1
  _po_attributes=${_po_attributes#declare -}
  _po_attributes=${_po_attributes%% *}
  [[ $_po_attributes != *[aAinr]* ]] || return 1
  [[ $_po_attributes != *x* ]] || grep -Eqs "$_po_before$1=" "${BASH_SOURCE[@]:2}"
}

# The default of each option that has been set: what it takes does not change by what a file has set it to.
declare -A _po_defaults=()

# Set the variable of option $1 (without its dashes) to $2; $3 says in messages where the option stands.
_po_set() {
  local _po_name=${1//-/_} _po_safe='^[A-Za-z0-9_.:,+-]*$'
  _po_declared "$_po_name" || _po_die "$3: unknown option --$1"
  _po_defaults[$_po_name]=${_po_defaults[$_po_name]-${!_po_name}}
  case ${_po_defaults[$_po_name]} in
    true | false)
      [[ $2 == true || $2 == false ]] || _po_die "$3: --$1 expects true or false, not '$2'" ;;
    *)
      if [[ ${_po_defaults[$_po_name]} =~ ^-?[0-9]+$ && ! $2 =~ $_po_safe ]]; then
        _po_die "$3: --$1 expects a number, not '$2'"
      fi ;;
  esac
  printf -v "$_po_name" '%s' "$2"
}

# Read the configuration file $1: name=value lines, quotes round a value are taken off, nothing is expanded.
_po_read_config() {
  local _po_line _po_value _po_option _po_number=0
  local _po_double='^"([^"]*)"[[:space:]]*(#.*)?$' _po_single="^'([^']*)'[[:space:]]*(#.*)?\$"
  local _po_assignment='^[[:space:]]*(--)?([A-Za-z_][A-Za-z0-9_-]*)=(.*)$'
  [[ -f $1 && -r $1 ]] || _po_die "--config $1: no such file, or not readable"
  while IFS= read -r _po_line || [[ -n $_po_line ]]; do
    _po_number=$((_po_number + 1))
    _po_line=${_po_line%$'\r'}
    [[ ! $_po_line =~ ^[[:space:]]*(#.*)?$ ]] || continue
    [[ $_po_line =~ $_po_assignment ]] || _po_die "$1:$_po_number: expected name=value, found '$_po_line'"
    _po_option=${BASH_REMATCH[2]}
    _po_value=${BASH_REMATCH[3]}
    if [[ $_po_value =~ $_po_double || $_po_value =~ $_po_single ]]; then
      _po_value=${BASH_REMATCH[1]}
    else
      [[ $_po_value != '#'* ]] || _po_value=
      _po_value=${_po_value%%[[:space:]]#*}
      _po_value=${_po_value%"${_po_value##*[![:space:]]}"}
    fi
    _po_set "$_po_option" "$_po_value" "$1:$_po_number"
  done <"$1"
}

# True if _po_option is a variable whose default is true or false.
_po_is_flag() {
  local _po_name=${_po_option//-/_} _po_default
  _po_declared "$_po_name" || return 1
  _po_default=${_po_defaults[$_po_name]-${!_po_name}}
  [[ $_po_default == true || $_po_default == false ]]
}

# Split the first option of "$@" into _po_option and _po_value; _po_words is the number of words it takes.
_po_next() {
  _po_option=${1#--} _po_words=1
  if [[ $_po_option == *=* ]]; then
    _po_value=${_po_option#*=}
    _po_option=${_po_option%%=*}
    return
  fi
  if _po_is_flag && [[ ${2:---} == --* ]]; then
    _po_value=true
    return
  fi
  (($# > 1)) || _po_die "$1 needs a value"
  # A value with a space in it cannot be a forgotten value's neighbour: --cmd-opts "--mem 4G" is meant.
  if [[ $2 == --[A-Za-z]* && $2 != *[[:space:]]* ]]; then
    _po_die "$1 needs a value, but is followed by $2 (if that is the value: $1=$2)"
  fi
  _po_value=$2 _po_words=2
}

# Read the file of the preset that the command line, or else the variable, names.
_po_read_preset() {
  local _po_option _po_value _po_words _po_names
  while (($#)) && [[ $1 == --* && $1 != -- && $1 != --help ]]; do
    _po_next "$@"
    [[ $_po_option != preset ]] || preset=$_po_value
    shift "$_po_words"
  done
  [[ -n $preset ]] || return 0
  if [[ $preset == */* || ! -f $preset_folder/$preset.conf ]]; then
    _po_names=$(cd "$preset_folder" && printf '%s\n' *.conf)
    _po_names=${_po_names//.conf/}
    _po_die "--preset $preset: expected one of ${_po_names//$'\n'/ }"
  fi
  _po_read_config "$preset_folder/$preset.conf"
}

# First pass: --help and --config only.
_po_first_pass() {
  local _po_option _po_value _po_words
  if [[ -n ${preset_folder:-} ]]; then _po_read_preset "$@"; fi
  while (($#)) && [[ $1 == -h || ($1 == --* && $1 != --) ]]; do
    if [[ $1 == --help || $1 == -h ]]; then
      printf '%b\n' "${help_message:-$0: no help message}"
      exit 0
    fi
    _po_next "$@"
    [[ $_po_option != config ]] || _po_read_config "$_po_value"
    shift "$_po_words"
  done
}

_po_first_pass "$@"
while (($#)) && [[ $1 == --* ]]; do
  if [[ $1 == -- ]]; then
    shift
    break
  fi
  _po_next "$@"
  [[ $_po_option == config ]] || _po_set "$_po_option" "$_po_value" "command line"
  shift "$_po_words"
done
# An empty --cmd is a slip of the calling script (an unset variable); it would run jobs without a launcher.
if [[ -n ${cmd+set} && -z $cmd ]]; then
  _po_die "empty argument to --cmd"
fi
unset -f _po_die _po_declared _po_set _po_read_config _po_next _po_is_flag _po_read_preset _po_first_pass
unset -v _po_option _po_value _po_words _po_defaults
true
