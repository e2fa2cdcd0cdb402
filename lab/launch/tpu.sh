#!/usr/bin/env bash
# One TPU VM slice, from nothing to a sweep that goes on after preemptions.
#
#   NAME=ladder ZONE=us-east5-a ACCELERATOR_TYPE=v5p-256 RUNTIME_VERSION=v2-alpha-tpuv5 \
#     COMMAND='python -m lab.launch.sweep experiments/01_first_ladder/sweep.py' \
#     bash lab/launch/tpu.sh create
#
# `python -m lab.launch.render --target tpu-vm` writes this script with those settings in it.
# The command runs detached on every host, so that a lost connection does not end it: the same
# `run` watches it again. Exit codes: 0 done, 2 bad input, 3 diverged, else that of the last failure.
set -u

NAME="${NAME:-}"
ZONE="${ZONE:-}"
PROJECT="${PROJECT:-}"                   # "": gcloud's own
ACCELERATOR_TYPE="${ACCELERATOR_TYPE:-}" # like v5p-256
RUNTIME_VERSION="${RUNTIME_VERSION:-}"   # like v2-alpha-tpuv5
COMMAND="${COMMAND:-}"
BUCKET="${BUCKET:-}" # mounted at /gcs/BUCKET on every host; "": none
MOUNT="${MOUNT:-}"   # a line that mounts the work directory on a host; "": none
SPOT="${SPOT:-}"     # "yes": a slice that may be taken away at any time
JOB="${JOB:-}"       # several jobs serve one sweep, each on its own slice: JOB=0, JOB=1, ...
AGAIN="${AGAIN:-75}"
NEVER="${NEVER:-2 3}"
MOST_RESTARTS="${MOST_RESTARTS:-3}"
POLL_S="${POLL_S:-30}"
SLICE="$NAME${JOB:+-$JOB}"

usage() {
  cat <<EOF
usage: bash $0 create | run | status | logs | stop | delete

  create   make the slice, copy the committed files of this repository to it, install
  run      start the command on every host (or watch the one that runs) until it is done:
           $AGAIN and a slice that was taken away start it again however often, $NEVER never,
           anything else $MOST_RESTARTS times
  status   the slice's state and how each host's command stands
  logs     the last lines of host 0, and what follows
  stop     SIGTERM to the command: it saves and leaves, and so does run
  delete   give the slice back: it costs until then

Settings are variables: NAME ZONE ACCELERATOR_TYPE RUNTIME_VERSION COMMAND are needed, PROJECT
BUCKET MOUNT SPOT=yes JOB=0 are not. Example: JOB=1 bash $0 create && JOB=1 bash $0 run
EOF
}

refuse() {
  echo "error: $1" >&2
  exit 2
}

gcloud_tpu() { # the verb and its flags
  local verb="$1"
  shift
  gcloud compute tpus tpu-vm "$verb" "$SLICE" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"} "$@"
}

everywhere() { gcloud_tpu ssh --quiet --worker=all --command="$1"; }

state() { gcloud_tpu describe --format='value(state)' 2>/dev/null; }

create() {
  gcloud_tpu create --accelerator-type="$ACCELERATOR_TYPE" --version="$RUNTIME_VERSION" \
    ${SPOT:+--spot} && install_code
}

install_code() {
  local archive
  archive="$(mktemp -d)/code.tar.gz"
  git archive --format=tar.gz --output="$archive" HEAD || return 1
  gcloud compute tpus tpu-vm scp "$archive" "$SLICE:code.tar.gz" --quiet --worker=all \
    --zone="$ZONE" ${PROJECT:+--project="$PROJECT"} || return 1
  everywhere "set -e
mkdir -p lab-code && cd lab-code && tar xzf ../code.tar.gz
python3 -m pip install --quiet --user uv
python3 -m uv venv --quiet --allow-existing --python 3.11 .venv
python3 -m uv pip install --quiet --python .venv -r requirements.lock 'jax[tpu]'"
}

mount_line() { # on a host, before the command
  [ -z "$MOUNT" ] || echo "$MOUNT"
  [ -z "$BUCKET" ] || echo "mountpoint -q /gcs/$BUCKET || { sudo mkdir -p /gcs/$BUCKET && sudo chown \$USER /gcs/$BUCKET \
&& gcsfuse --implicit-dirs $BUCKET /gcs/$BUCKET; } || exit 1"
}

start() { # on every host, unless it runs there; what is detached writes its exit code at its end
  local inner
  inner="trap : TERM; $COMMAND; echo \$? >exit_code.part; mv exit_code.part exit_code"
  everywhere "cd lab-code || exit 1
$(mount_line)
if [ ! -e exit_code ] && kill -0 -- -\$(cat pid 2>/dev/null || echo none) 2>/dev/null; then exit 0; fi
rm -f exit_code stopped
PATH=\$PWD/.venv/bin:\$PATH nohup setsid bash -c $(printf '%q' "$inner") >>log 2>&1 </dev/null &
echo \$! >pid"
}

codes() { # one word a host: running, stopped (by hand), lost or an exit code
  everywhere "cd lab-code || exit 1
if [ -e exit_code ] && [ -e stopped ]; then echo code=stopped
elif [ -e exit_code ]; then echo code=\$(cat exit_code)
elif kill -0 -- -\$(cat pid 2>/dev/null || echo none) 2>/dev/null; then echo code=running
else echo code=lost; fi" | sed -n 's/.*code=//p'
}

outcome() { # of all hosts: running, or the code that decides
  local all
  all="$(codes)" || return 1
  [ -n "$all" ] || return 1
  if grep -qx running <<<"$all"; then
    echo running
    return
  fi
  local code
  for code in $NEVER stopped lost; do # what one of them says holds for all
    if grep -qx "$code" <<<"$all"; then
      echo "$code"
      return
    fi
  done
  grep -vx 0 <<<"$all" | sort -n | tail -n 1 | grep . || echo 0
}

is_one_of() { [[ " $2 " == *" $1 "* ]]; }

run() {
  local failures=0 code now
  start || bring_back || exit 1
  while :; do
    sleep "$POLL_S"
    if ! code="$(outcome)"; then
      now="$(state)"
      [ "$now" = READY ] && continue # a connection failed: look again
      echo "$SLICE: ${now:-gone}; made anew" >&2
      bring_back || exit 1
      continue
    fi
    [ "$code" = running ] && continue
    [ "$code" = 0 ] && { echo "$SLICE: done; next: bash $0 delete"; exit 0; }
    if [ "$code" = stopped ]; then
      echo "$SLICE: stopped by hand; the same run goes on from there" >&2
      exit 75
    fi
    if is_one_of "$code" "$NEVER"; then
      echo "$SLICE: left with $code: not tried again; see: bash $0 logs" >&2
      exit "$code"
    fi
    if ! is_one_of "$code" "$AGAIN"; then
      failures=$((failures + 1))
      if [ "$failures" -gt "$MOST_RESTARTS" ]; then
        echo "$SLICE: left with $code: failure $failures, the last" >&2
        [[ "$code" =~ ^[0-9]+$ ]] && exit "$code"
        exit 1
      fi
    fi
    echo "$SLICE: left with $code: started again" >&2
    start || bring_back || exit 1
  done
}

bring_back() { # a slice that was taken away does not come back by itself
  if [ "$(state)" != READY ]; then
    gcloud_tpu delete --quiet 2>/dev/null
    until create; do
      echo "$SLICE: no slice is free; asked again in $POLL_S s" >&2
      sleep "$POLL_S"
    done
  fi
  start
}

case "${1:-}" in
  create | run | status | logs | stop | delete) ;;
  -h | --help | help) usage && exit 0 ;;
  *) usage >&2 && exit 2 ;;
esac
for setting in NAME ZONE ACCELERATOR_TYPE RUNTIME_VERSION COMMAND; do
  [ -n "${!setting}" ] || refuse "$setting is not set; see: bash $0 --help"
done
case "$1" in
  create) create && echo "$SLICE: ready; next: ${JOB:+JOB=$JOB }bash $0 run" ;;
  run) run ;;
  status)
    now="$(state)"
    echo "$SLICE: ${now:-there is none}"
    [ "$now" != READY ] || codes
    ;;
  logs) gcloud_tpu ssh --quiet --worker=0 --command="tail -n 50 -F lab-code/log" ;;
  stop) everywhere "cd lab-code && touch stopped && kill -TERM -- -\$(cat pid)" ;;
  delete) gcloud_tpu delete --quiet ;;
esac
