#!/usr/bin/env bash
# A container engine for the image tests on a machine that runs none: Docker of Debian's packages, started by root, with
# its data in one folder. Nothing of the machine's own is touched, and `down` ends it.
#
#   docker/engine.sh up [folder]      prints lines NAME=value to put into the environment
#   docker/engine.sh down [folder]
#
# Exit code 75: this machine can run none; the last line of stderr says why.
set -euo pipefail
action=${1:?up or down}
folder=$(realpath -m "${2:-/var/tmp/image-tests-engine}")
socket=$folder/docker.sock
client=/usr/bin/docker # Debian's: it builds with BuildKit without a plugin

cannot() { echo "$1" >&2; exit 75; }
answers() { DOCKER_HOST=unix://$socket "$client" version >/dev/null 2>&1; }
running() { [ -s "$folder/dockerd.pid" ] && [ "$(cat "/proc/$(cat "$folder/dockerd.pid")/comm" 2>/dev/null)" = dockerd ]; }

install_engine() {
  [ "$(id -u)" = 0 ] || cannot "no container engine answers, and only root can start one"
  command -v apt-get >/dev/null || cannot "no container engine answers, and this is no Debian to install one on"
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends docker.io docker-compose debootstrap; } \
    >"$folder/apt.log" 2>&1 || cannot "Debian's docker.io cannot be installed: $(tail -1 "$folder/apt.log")"
}

start() { # $1: storage driver
  local options=(--data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/dockerd.pid"
                 --host "unix://$socket" --storage-driver "$1")
  # Without NAT there is no bridge: containers share the machine's network then.
  iptables --wait --table nat --list --numeric >/dev/null 2>&1 || options+=(--iptables=false --bridge=none)
  setsid nohup /usr/sbin/dockerd "${options[@]}" >"$folder/log" 2>&1 </dev/null &
  for _ in $(seq 160); do
    answers && return 0
    kill -0 $! 2>/dev/null || return 1
    sleep 0.25
  done
  return 1
}

case $action in
  up)
    mkdir -p "$folder/bin"
    [ -x /usr/sbin/dockerd ] && [ -x "$client" ] && command -v docker-compose debootstrap >/dev/null || install_engine
    if ! answers; then
      mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup 2>/dev/null || true
      start overlay2 || start vfs || cannot "dockerd does not start: $(tail -1 "$folder/log")"
    fi
    ln -sf "$client" "$folder/bin/docker" # a newer client elsewhere on PATH might want a plugin to build
    network=bridge
    DOCKER_HOST=unix://$socket "$client" network inspect bridge >/dev/null 2>&1 || network=host
    printf '%s\n' "DOCKER_HOST=unix://$socket" DOCKER_BUILDKIT=1 "PATH=$folder/bin:$PATH" "CONTAINER_NETWORK=$network"
    ;;
  down)
    if running; then
      pid=$(cat "$folder/dockerd.pid")
      kill "$pid"
      for _ in $(seq 80); do [ -d "/proc/$pid" ] || break; sleep 0.25; done
    fi
    umount "$folder/exec/netns/default" 2>/dev/null || true
    ;;
  *) echo "up or down, not $action" >&2; exit 2 ;;
esac
