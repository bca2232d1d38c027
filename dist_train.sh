#!/usr/bin/env bash
# Train with several processes.
#
#   GPUS=8 bash dist_train.sh CONFIG [tools/train.py options]
#
# dist.sh says what GPUS and other variables do.
set -euo pipefail

if (($# < 1)); then
    echo "usage: [GPUS=N] bash dist_train.sh CONFIG [tools/train.py options]" >&2
    exit 2
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec bash "$here/dist.sh" "$here/tools/train.py" "$1" --launcher pytorch "${@:2}"
