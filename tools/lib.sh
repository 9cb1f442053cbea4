# What tools/test and tools/quickstart share. Sourced by bash; the current folder is the source root.

jobs=$(nproc)
targets=()

# setup_and_compile DIR CXX OPTION...: configures DIR and compiles `targets` there, or all when there are none. Quiet unless
# it fails.
setup_and_compile() {
  local dir=$1 cxx=$2 log=$1/build.log
  shift 2
  mkdir -p "$dir"
  configure "$dir" "$cxx" "$@" >"$log" 2>&1 && ninja -C "$dir" -j "$jobs" "${targets[@]}" >>"$log" 2>&1 && return
  if grep -q '^FAILED:' "$log"; then sed -n '/^FAILED:/,$p' "$log" | head -n 60; else tail -n 30 "$log"; fi
  echo "the build in $dir failed; its whole output is in $log" >&2
  return 1
}

# configure DIR CXX OPTION...: nothing to do where that was done with the same words, for Ninja notices all the rest. Other
# words configure anew: Meson that configures again lets the build type overrule -Doptimization, and ignores -Dcpp_args.
configure() {
  local dir=$1 cxx=$2 words="${*:2}" done_with=$1/configured-with
  shift 2
  [[ -e $dir/build.ninja && -e $done_with && $(<"$done_with") == "$words" ]] && return
  rm -rf "$dir"/{build.ninja,meson-private,meson-info}
  CXX=$cxx meson setup "$dir" "$@" && echo "$words" >"$done_with"
}

# start_server PROGRAM ARG...: starts it and waits for its line `listening URL key=value...`.
# Sets server (process id), url, and facts (the rest of the line).
start_server() {
  exec {server_output}< <(exec "$@")
  server=$!
  local word
  read -r -t 20 word url facts <&"$server_output" && [[ $word == listening ]] && return
  echo "$1 did not start listening" >&2
  return 1
}

# stop_server: asks it to end; prints its last words; its exit status is this function's.
stop_server() {
  kill -TERM "$server"
  cat <&"$server_output"
  exec {server_output}<&-
  wait "$server"
}
