#!/usr/bin/env bash
# Run active learning under SLURM.
#   bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [arguments of al_train.py]
# The environment may set GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS.
set -eu

if [ $# -lt 3 ]; then
    echo "usage: bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [arguments]" >&2
    exit 2
fi
PARTITION=$1 JOB_NAME=$2 CONFIG=$3
shift 3
GPUS=${GPUS:-8} PER_NODE=${GPUS_PER_NODE:-8}
PER_NODE=$((PER_NODE < GPUS ? PER_NODE : GPUS))

# shellcheck disable=SC2086  # SRUN_ARGS holds several arguments
exec srun -p "$PARTITION" --job-name="$JOB_NAME" --gres="gpu:$PER_NODE" \
    --ntasks="$GPUS" --ntasks-per-node="$PER_NODE" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$(dirname "$0")/al_train.py" "$CONFIG" --launcher slurm "$@"
