#!/usr/bin/env bash
$directives

# Every host runs one command, and how it left decides: $again puts the job back into the queue
# however often, $never never, anything else $most_restarts times. Before the time limit or a preemption
# Slurm sends SIGTERM, the command saves and leaves with 75.
set -u
cd "$${SLURM_SUBMIT_DIR:-.}" || exit 2
failures_file=".$${SLURM_JOB_NAME:-job}-$${SLURM_JOB_ID:-0}.failures"
$environment
[ -d .venv/bin ] && export PATH="$$PWD/.venv/bin:$$PATH"

srun --wait=$wait_s $command &
step=$$!
trap 'kill -TERM "$$step" 2>/dev/null' TERM INT
while kill -0 "$$step" 2>/dev/null; do
  wait "$$step"  # ends early when a signal comes
done
wait "$$step"
code=$$?

requeue() {
  echo "job $${SLURM_JOB_ID:-}: left with $$code: $$1" >&2
  scontrol requeue "$${SLURM_JOB_ID:-}"
}

case "$$code" in
  0) rm -f "$$failures_file" ;;
  $again) requeue "saved; back into the queue" ;;
  $never) echo "job $${SLURM_JOB_ID:-}: left with $$code: not tried again" >&2 ;;
  *)
    failures=$$(($$(cat "$$failures_file" 2>/dev/null || echo 0) + 1))
    echo "$$failures" >"$$failures_file"
    if [ "$$failures" -le $most_restarts ]; then
      requeue "failure $$failures; $most_restarts are tried again"
    else
      echo "job $${SLURM_JOB_ID:-}: left with $$code: failure $$failures, the last" >&2
    fi
    ;;
esac
exit "$$code"
