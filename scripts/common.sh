# Shared by the scripts of this folder; read with `source`. Talk goes to stderr, results to stdout.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=scripts/$(basename "$0")
export root program

# Each argument is a line.
say() { printf '%s\n' "$@" >&2; }

# die MESSAGE REMEDY [STATUS]
die() {
  say "$program: $1"
  say "  remedy: $2"
  exit "${3:-1}"
}

# count NUMBER NOUN: "1 run", "2 runs"
count() {
  if (($1 == 1)); then echo "$1 $2"; else echo "$1 $2s"; fi
}

# bad_argument ARGUMENT
bad_argument() {
  say "$program: unknown argument: $1 (see $program --help)"
  exit 2
}

# Prints a script's opening comment, its help, without the comment signs.
help() {
  sed -n '2,/^[^#]/{/^#/!q; s/^# \{0,1\}//; p}' "$0"
}

# Compilations that run at once: one a core, and no more than memory holds at 2 GiB each.
build_jobs() {
  local cores kib jobs
  cores=$(nproc)
  kib=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)
  jobs=$((kib / (2 * 1024 * 1024)))
  ((jobs >= 1)) || jobs=1
  echo $((jobs < cores ? jobs : cores))
}

# build TARGET...: Release into build/.
build() { build_preset default build "$@"; }

# build_preset PRESET FOLDER TARGET...: a preset of CMakePresets.json into its folder. On a terminal Ninja's own
# status line is shown; elsewhere the output goes to FOLDER/build.log and is shown when something fails.
build_preset() {
  local preset=$1 folder=$2 start=$SECONDS
  local log=$root/$folder/build.log
  shift 2
  mkdir -p "$root/$folder"
  say "building: $* ($folder/)"
  if ! (cd "$root" && cmake --preset "$preset") >"$log" 2>&1; then
    cat "$log" >&2
    die "configuring failed" "see the message above; after a change of compiler or LibTorch: rm -rf $folder"
  fi
  if [[ -t 2 ]]; then
    ninja -C "$root/$folder" -j "$(build_jobs)" "$@" >&2 || die "the build failed" "see the message above"
  elif ! ninja -C "$root/$folder" -j "$(build_jobs)" "$@" >>"$log" 2>&1; then
    grep -v '^\[[0-9]*/[0-9]*\] ' "$log" | tail -n 100 >&2
    die "the build failed" "see the messages above, or all of them in $folder/build.log"
  fi
  say "built in $((SECONDS - start)) s"
}

# --- Trainings side by side -------------------------------------------------------------------------
# They get process groups of their own, so that Ctrl-C reaches them once, through here; `hax` then saves
# its state. A training's talk goes to RUN.log.
hax=build/bin/hax
declare -A running=() # process -> run folder

# How many trainings at once, and the settings that let them share the machine: sets at_once and
# sharing_settings.
share_machine() {
  if nvidia-smi -L >/dev/null 2>&1; then
    at_once=2 sharing_settings=()
    say "training on $(nvidia-smi -L | head -n 1 | sed 's/ (UUID.*//')"
  else
    at_once=$(nproc) sharing_settings=(--set train.threads=1)
    say "training on $(count "$at_once" core), one thread a run"
  fi
}

# start_training RUN ARGUMENT...: in the background.
start_training() {
  local run=$1
  shift
  mkdir -p "$(dirname "$run")"
  setsid "$hax" train "$@" "${sharing_settings[@]}" --out "$run" >>"$run.log" 2>&1 </dev/null &
  running[$!]=$run
}

# Waits for one training to end: sets ended_run and ended_status, and says its last line.
# shellcheck disable=SC2034 # for the caller
reap_training() {
  local pid
  ended_status=0
  wait -n -p pid "${!running[@]}" || ended_status=$?
  ended_run=${running[$pid]}
  unset "running[$pid]"
  say "  $(tail -n 1 "$ended_run.log" | sed 's/^[0-9:]* [a-z]*: //')"
}

stop_trainings() {
  trap '' INT TERM HUP
  ((${#running[@]} == 0)) || kill -TERM "${!running[@]}" 2>/dev/null || true
  wait
}

# stop_on_signals COMMAND: a signal stops all trainings and says that COMMAND goes on from there.
stop_on_signals() {
  resume_command=$1
  trap 'interrupted 130' INT
  trap 'interrupted 143' TERM HUP
}

interrupted() {
  say "" "stopping: trainings save their state"
  stop_trainings
  say "stopped; to go on where it stopped: $resume_command"
  exit "$1"
}
