#!/usr/bin/env bash
# Run active learning on the GPUs of one machine (or of several, see torchrun).
#   bash tools/dist_train.sh CONFIG GPUS [arguments of tools/al_train.py]
set -eu

if [ $# -lt 2 ]; then
    echo "usage: bash tools/dist_train.sh CONFIG GPUS [arguments of al_train.py]" >&2
    exit 2
fi
CONFIG=$1 GPUS=$2
shift 2

exec "${PYTHON:-python}" -m torch.distributed.run --nproc_per_node="$GPUS" \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    "$(dirname "$0")/al_train.py" "$CONFIG" --launcher pytorch "$@"
