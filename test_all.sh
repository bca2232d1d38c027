#!/usr/bin/env bash
# Evaluate one setting on all eight benchmarks, one after another, then compare with the published numbers.
#
#   bash test_all.sh ARCH ATTN GAUSSIAN_STD PAMR GPU LOG_PATH [more eval.py options]
#   bash test_all.sh reduced naclip 5 on 0 naclip.log --data-root /datasets
#
# GPU is an index, or cpu. WORK_DIR (default work_dirs/test_all) gets a folder a benchmark. The exit code is 0 only
# if all eight were evaluated.
set -uo pipefail

if (($# < 6)); then
    echo "usage: bash test_all.sh ARCH ATTN GAUSSIAN_STD PAMR GPU LOG_PATH [more eval.py options]" >&2
    exit 2
fi
arch=$1 attn=$2 std=$3 pamr=$4 gpu=$5 log=$6
options=("${@:7}")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python}
work_dir=${WORK_DIR:-work_dirs/test_all}
benchmarks=(voc21 context60 coco_object voc20 city_scapes context59 ade20k coco_stuff164k)

device=cuda:$gpu
if [[ $gpu == cpu ]]; then device=cpu; fi
if [[ -d $log || $log == */ ]]; then log=${log%/}/test_all.log; fi
mkdir -p "$(dirname "$log")" "$work_dir" || exit 1

evaluate_all() {
    local benchmark failed=()
    for benchmark in "${benchmarks[@]}"; do
        echo "=== $benchmark"
        rm -f "$work_dir/$benchmark/results.json"
        "$python" "$here/eval.py" --config "$here/configs/cfg_$benchmark.py" --arch "$arch" --attn "$attn" \
            --std "$std" --pamr "$pamr" --device "$device" --work-dir "$work_dir/$benchmark" \
            ${options[@]+"${options[@]}"} || failed+=("$benchmark")
    done
    echo "=== all"
    "$python" "$here/tools/compare_published.py" "$work_dir" "${benchmarks[@]}"
    if ((${#failed[@]})); then
        echo "not evaluated: ${failed[*]} (the reasons are above, and in $log)"
        return 1
    fi
}

evaluate_all 2>&1 | tee "$log"
