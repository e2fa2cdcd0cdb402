#!/usr/bin/env bash
# One TPU VM slice, from nothing to a sweep that goes on after preemptions.
#
#   NAME=ladder ZONE=us-east5-a ACCELERATOR_TYPE=v5p-256 RUNTIME_VERSION=v2-alpha-tpuv5 \
#     COMMAND='python -m lab.launch.sweep experiments/01_first_ladder/sweep.py' \
#     bash lab/launch/tpu.sh create
#
# `python -m lab.launch.render --target tpu-vm` writes this script with those settings in it.
# The command runs detached on every host, so that a lost connection does not end it: the same
# `run` watches it again. Exit codes: 0 done, 1 a defect, or hosts that could not be reached, 2 bad
# input, 3 diverged, 75 stopped by hand, else that of the last failure.
set -uo pipefail

NAME="${NAME:-}"
ZONE="${ZONE:-}"
PROJECT="${PROJECT:-}"                   # "": gcloud's own
ACCELERATOR_TYPE="${ACCELERATOR_TYPE:-}" # like v5p-256, in its usual shape
TYPE="${TYPE:-}"                         # instead, for another shape: like v5p ...
TOPOLOGY="${TOPOLOGY:-}"                 # ... and 4x4x16
RUNTIME_VERSION="${RUNTIME_VERSION:-}"   # like v2-alpha-tpuv5
COMMAND="${COMMAND:-}"
BUCKET="${BUCKET:-}" # mounted at /gcs/BUCKET on every host; "": none
MOUNT="${MOUNT:-}"   # a line that mounts the work directory on a host; "": none
SPOT="${SPOT:-}"     # "yes": a slice that may be taken away at any time
JOB="${JOB:-}"       # several jobs serve one sweep, each on its own slice: JOB=0, JOB=1, ...
AGAIN="${AGAIN:-75}"
NEVER="${NEVER:-1 2 3}"
MOST_RESTARTS="${MOST_RESTARTS:-3}"
MOST_TRIES="${MOST_TRIES:-10}" # to reach the hosts of a slice that stands, one every POLL_S
POLL_S="${POLL_S:-30}"
SLICE="$NAME${JOB:+-$JOB}"

usage() {
  cat <<EOF
usage: bash $0 create | run | status | logs | stop | delete

  create   make the slice unless it is there, copy the committed files of this repository to it,
           install
  run      start the command on every host (or watch the one that runs) until it is done:
           $AGAIN and a slice that was taken away start it again however often, $NEVER never,
           anything else $MOST_RESTARTS times
  status   the slice's state and how each host's command stands
  logs     the last lines of host 0, and what follows
  stop     SIGTERM to the command: it saves and leaves, and so does run
  delete   give the slice back: it costs until then

Settings are variables: NAME ZONE ACCELERATOR_TYPE (or TYPE and TOPOLOGY) RUNTIME_VERSION COMMAND
are needed, PROJECT BUCKET MOUNT SPOT=yes JOB=0 are not. Example:
JOB=1 bash $0 create && JOB=1 bash $0 run
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

state() { # READY, PREEMPTED, ...; nothing where there is no slice, "unreachable" if gcloud fails
  local errors answer
  errors="$(mktemp)" || exit 1
  if answer="$(gcloud_tpu describe --format='value(state)' 2>"$errors")"; then
    echo "$answer"
  elif ! grep -q NOT_FOUND "$errors"; then
    echo unreachable
  fi
  rm -f "$errors"
}

is_one_of() { [[ " $2 " == *" $1 "* ]]; }

have_slice() { # make it, unless it is there; one that was taken away still holds the name
  local now
  now="$(state)"
  [ "$now" = READY ] && return
  is_one_of "$now" "unreachable CREATING STARTING RESTARTING STOPPING DELETING" && return 1
  [ -z "$now" ] || gcloud_tpu delete --quiet
  if [ -n "$TOPOLOGY" ]; then
    set -- --type="$TYPE" --topology="$TOPOLOGY"
  else
    set -- --accelerator-type="$ACCELERATOR_TYPE"
  fi
  gcloud_tpu create "$@" --version="$RUNTIME_VERSION" ${SPOT:+--spot}
}

persist() { # hosts that do not answer are asked again, while their slice stands
  local tries now
  for ((tries = 1; tries <= MOST_TRIES; tries++)); do
    "$@" && return
    now="$(state)"
    is_one_of "$now" "READY unreachable" || { echo "$SLICE: ${now:-gone}" >&2 && return 1; }
    echo "$SLICE: $1 failed ($tries of $MOST_TRIES); tried again in $POLL_S s" >&2
    sleep "$POLL_S"
  done
  echo "$SLICE: $1 failed $MOST_TRIES times; the slice stands and costs: bash $0 delete" >&2
  exit 1
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

run() {
  local failures=0 code now
  persist start || bring_back
  while :; do
    sleep "$POLL_S"
    if ! code="$(outcome)"; then
      now="$(state)"
      is_one_of "$now" "READY unreachable" && continue # a connection failed: look again
      echo "$SLICE: ${now:-gone}; made anew" >&2
      bring_back
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
    persist start || bring_back
  done
}

bring_back() { # a slice that was taken away does not come back by itself
  while :; do
    until have_slice; do
      echo "$SLICE: no slice yet; asked again in $POLL_S s" >&2
      sleep "$POLL_S"
    done
    persist install_code && persist start && return
  done
}

case "${1:-}" in
  create | run | status | logs | stop | delete) ;;
  -h | --help | help) usage && exit 0 ;;
  *) usage >&2 && exit 2 ;;
esac
for setting in NAME ZONE ${TOPOLOGY:+TYPE} RUNTIME_VERSION COMMAND; do
  [ -n "${!setting}" ] || refuse "$setting is not set; see: bash $0 --help"
done
[ -n "$ACCELERATOR_TYPE$TOPOLOGY" ] || refuse "ACCELERATOR_TYPE is not set; see: bash $0 --help"
case "$1" in
  create)
    have_slice && persist install_code && echo "$SLICE: ready; next: ${JOB:+JOB=$JOB }bash $0 run"
    ;;
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
