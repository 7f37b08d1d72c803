# Settings and helpers of the harness scripts. Sourced, never run.
# shellcheck shell=bash

HARNESS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPOSITORY=$(cd "$HARNESS/../../.." && pwd)
SLUICE_CACHE=${SLUICE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sluice}

# What survives `cluster down`: the binaries and the node image.
STATE=$SLUICE_CACHE/kubernetes
BIN=$STATE/bin
NODE_IMAGE_ARCHIVE=$STATE/node-image.tar.zst

KUBERNETES_VERSION=v1.34.4
NODE_IMAGE=local/node:$KUBERNETES_VERSION
CLUSTER_NAME=${SLUICE_CLUSTER_NAME:-sluice}
NETNS=$CLUSTER_NAME
API_PORT=${SLUICE_API_PORT:-36443}
# What lives as long as the cluster; by its name, so that two do not meet. Short, as socket paths have to be.
CLUSTER_DIR=$STATE/$CLUSTER_NAME
RUN=$CLUSTER_DIR/run
DOCKER_DIR=$CLUSTER_DIR/docker
DOCKER_SOCKET=unix://$DOCKER_DIR/docker.sock
CLUSTER_KUBECONFIG=$CLUSTER_DIR/kubeconfig

say() { printf 'cluster: %s\n' "$*" >&2; }
fail() {
  printf 'cluster: %s\n' "$*" >&2
  exit 1
}

# need COMMAND... : refuses with the names of what is missing, all at once.
need() {
  local missing=() command
  for command in "$@"; do
    command -v "$command" >/dev/null 2>&1 || missing+=("$command")
  done
  [ ${#missing[@]} -eq 0 ] || fail "missing on this machine: ${missing[*]}; run \`make setup\`"
}

# recipe_key PATH... : one hash over what a cached product was made from.
recipe_key() {
  (cd "$HARNESS" && find "$@" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum) | sha256sum | cut -c1-16
}

# A process id alone may be somebody else's tomorrow; with its start time it cannot be.
process_stamp() { local pid=$1 stat; stat=$(cat "/proc/$pid/stat" 2>/dev/null) || return 1; echo "$pid $(echo "${stat##*) }" | cut -d' ' -f20)"; }
record_process() { process_stamp "$2" >"$RUN/$1.pid"; }
recorded_alive() {
  local pid _
  [ -s "$RUN/$1.pid" ] && read -r pid _ <"$RUN/$1.pid" && [ "$(process_stamp "$pid")" = "$(cat "$RUN/$1.pid")" ]
}
end_recorded() {
  local pid _
  if recorded_alive "$1"; then
    read -r pid _ <"$RUN/$1.pid"
    kill "$pid" 2>/dev/null || true
    wait_until 30 process_gone "$pid" || fail "process $pid ($1) does not end on SIGTERM; look at $DOCKER_DIR/log"
  fi
  rm -f "$RUN/$1.pid"
}
process_gone() { [ ! -d "/proc/$1" ]; }

# wait_until SECONDS COMMAND... : true as soon as the command is.
wait_until() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || return 1
    sleep 0.3
  done
}

# Not `ip netns exec`: that mounts /sys anew, and the cgroups are gone.
in_netns() { nsenter --net="/run/netns/$NETNS" "$@"; }
