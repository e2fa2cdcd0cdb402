#!/usr/bin/env bash
$directives

# Every host runs one command, and how it left decides: $again puts the job back into the queue
# however often, $never never, anything else $most_restarts times. Before the time limit Slurm sends
# SIGTERM to this script alone; it passes it on, the command saves and leaves with 75.
#   scancel --batch --signal=INT JOB   the same, and the job stays out of the queue
#   scancel JOB                        ends it too; the save has KillWait (slurm.conf) seconds
set -u
cd "$${SLURM_SUBMIT_DIR:-.}" || exit 2
failures_file=".$${SLURM_JOB_NAME:-job}-$${SLURM_JOB_ID:-0}.failures"
# Of an array this task alone: the id of one of its jobs is the id of the whole array.
job="$${SLURM_ARRAY_JOB_ID:-$${SLURM_JOB_ID:-}}$${SLURM_ARRAY_TASK_ID:+_$$SLURM_ARRAY_TASK_ID}"
$environment
[ -d .venv/bin ] && export PATH="$$PWD/.venv/bin:$$PATH"

save() { # once, for a second signal ends the command; srun itself would kill its tasks at the first
  trap '' TERM INT
  scancel --signal=TERM "$$job" # without --batch: the steps, not this script
}
stopped=""
trap save TERM
trap 'stopped=yes; save' INT

srun --wait=$wait_s $command &
step=$$!
while kill -0 "$$step" 2>/dev/null; do
  wait "$$step" # ends early when a signal comes
done
wait "$$step"
code=$$?

say() { echo "job $$job: left with $$code: $$1" >&2; }

requeue() { # unless somebody ended the job: Slurm would take it back all the same
  [ -z "$$stopped" ] || { say "stopped by hand; out of the queue" && return; }
  local state
  state="$$(squeue --noheader --states=all --format='%T %r' --job "$$job")"
  case "$$state" in
    "COMPLETING TimeLimit"*) ;;
    COMPLETING* | CANCELLED*) say "cancelled; out of the queue" && return ;;
  esac
  say "$$1"
  scontrol requeue "$$job"
}

case "$$code" in
  0) rm -f "$$failures_file" ;;
  $again) requeue "saved; back into the queue" ;;
  $never) say "not tried again" ;;
  *)
    failures=$$(($$(cat "$$failures_file" 2>/dev/null || echo 0) + 1))
    echo "$$failures" >"$$failures_file"
    if [ "$$failures" -le $most_restarts ]; then
      requeue "failure $$failures; $most_restarts are tried again"
    else
      say "failure $$failures, the last"
    fi
    ;;
esac
exit "$$code"
