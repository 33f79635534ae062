# shellcheck shell=bash
# How a recipe runs its jobs: on this machine, or on a cluster. To be sourced before parse_options.sh:
#
#   . "$root/utils/cmd.sh"             # sets cmd and train_cmd, which are options of the recipe then
#   . "$root/utils/parse_options.sh"
#   cmd_defaults                       # fills in what jobs need on a cluster
#
#   egs/mini/run.sh                                                  # run.py: all on this machine
#   VOXARK_CMD="slurm.py --partition long" egs/mini/run.sh           # Slurm; or --cmd "slurm.py --partition long"
#   VOXARK_CMD="queue.py -q all.q" egs/mini/run.sh                   # GridEngine
#   VOXARK_TRAIN_CMD="slurm.py --partition gpu --time 8:00:00"       # the trainings of networks elsewhere
#
# A cluster is never chosen because its programs are there: that a machine has sbatch does not say that its user wants
# to wait in a queue. How options become those of sbatch and qsub, say conf/slurm.conf and conf/queue.conf.

cmd=${VOXARK_CMD:-run.py}
train_cmd=${VOXARK_TRAIN_CMD:-}

# cmd_defaults: on a cluster jobs ask for memory, and trainings in Slurm for time to save; what the user says wins.
cmd_defaults() {
  local launcher=${train_cmd:-$cmd}
  case $launcher in
    slurm.py*) train_cmd="slurm.py --mem 16G --requeue true${launcher#slurm.py}" ;;
    queue.py*) train_cmd="queue.py --mem 16G${launcher#queue.py}" ;;
  esac
  case $cmd in
    slurm.py* | queue.py*) cmd="${cmd:0:8} --mem 4G${cmd:8}" ;;
  esac
}
