# Shared by the scripts of this folder; read with `source`. Talk goes to stderr, results to stdout.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=scripts/$(basename "$0")
export root program

# Each argument is a line.
say() { printf '%s\n' "$@" >&2; }

# die MESSAGE REMEDY
die() {
  say "$program: $1"
  say "  remedy: $2"
  exit 1
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

# build TARGET...: Release into build/. On a terminal Ninja's own status line is shown; elsewhere the
# output goes to build/build.log and is shown when something fails.
build() {
  local log=$root/build/build.log start=$SECONDS
  mkdir -p "$root/build"
  say "building: $* (build/)"
  if ! (cd "$root" && cmake --preset default) >"$log" 2>&1; then
    cat "$log" >&2
    die "configuring failed" "see the message above; after a change of compiler or LibTorch: rm -rf build"
  fi
  if [[ -t 2 ]]; then
    ninja -C "$root/build" -j "$(build_jobs)" "$@" >&2 || die "the build failed" "see the message above"
  elif ! ninja -C "$root/build" -j "$(build_jobs)" "$@" >>"$log" 2>&1; then
    grep -v '^\[[0-9]*/[0-9]*\] ' "$log" | tail -n 100 >&2
    die "the build failed" "see the messages above, or all of them in build/build.log"
  fi
  say "built in $((SECONDS - start)) s"
}
