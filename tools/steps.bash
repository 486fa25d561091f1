# The steps that the scripts in this folder share. Sourced, not run.
say() { printf '== %s\n' "$*"; }
fail() { printf 'error: %s\n' "$1" >&2; shift; [ $# = 0 ] || printf '  %s\n' "$@" >&2; exit 1; }

# What CMake is told to compile for each kind of GPU that is supported: A100, H100 and H200, B200, and PTX for later ones.
all_gpus='-DCMAKE_CUDA_ARCHITECTURES=80-real;90-real;100'

# configure PRESET [-D...]: quiet where all goes well, but for the summary.
configure() {
  local log=build/configure-$1.log
  mkdir -p build
  say "Configuring build/$1"
  cmake --preset "$@" >$log 2>&1 || { cat $log >&2; fail "CMake could not configure build/$1; its messages are above and in $log"; }
  sed -n '/libblt /,/tools /p' $log
}

# build PRESET [TARGET...]: with as many compilers at once as there are cores, and 2 GB of memory for each.
build() {
  local cores gigabytes
  cores=$(nproc)
  gigabytes=$(awk '/MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)
  local jobs=$((gigabytes / 2 < cores ? gigabytes / 2 : cores))
  say "Building in build/$1 (the first time takes minutes)"
  cmake --build --preset "$1" -j $((jobs > 1 ? jobs : 1)) ${2:+--target "${@:2}"}
}
