#!/usr/bin/env bash
# Start a Python script with several processes: what dist_test.sh and dist_train.sh have in common.
#
#   GPUS=8 bash dist.sh SCRIPT [its options]
#
# GPUS: processes on this machine (default: its GPUs, or 1). With --device cpu the processes share the CPU.
# NNODES, NODE_RANK, MASTER_ADDR, PORT: for several machines (default: this one alone).
set -euo pipefail

if (($# < 1)); then
    echo "usage: [GPUS=N] bash dist.sh SCRIPT [its options]" >&2
    exit 2
fi
python=${PYTHON:-python}
gpus=${GPUS:-$(nvidia-smi --list-gpus 2>/dev/null | wc -l)}
if ((gpus < 1)); then gpus=1; fi

exec "$python" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$gpus" "$@"
