#!/usr/bin/env bash
# Evaluate one setting, or several methods, on the eight benchmarks, then compare with the published numbers.
#
#   bash test_all.sh ARCH ATTN GAUSSIAN_STD PAMR GPU LOG_PATH [more eval.py options]
#   bash test_all.sh reduced naclip 5 on 0 naclip.log --data-root /datasets
#   bash test_all.sh - - - - 0 sclip.log --method sclip
#   bash test_all.sh - - - - 0 several.log --method clip naclip sclip clearclip
#
# What methods and benchmarks have in common is computed once. '-' for ARCH, ATTN, GAUSSIAN_STD or PAMR keeps what the method has, or without --method the config. GPU is an index, or
# cpu. BENCHMARKS="voc21 ade20k" takes others than the eight. WORK_DIR gets a folder a benchmark; the default is named
# after the options, work_dirs/test_all/OPTIONS, so that other settings go elsewhere. The exit code is 0 only if all were
# evaluated.
#
# The same command again goes on where a killed one stopped, and leaves out what is finished. A benchmark whose folder has
# a run under other settings is refused. RESUME=0 starts all over.
set -uo pipefail

if (($# < 6)); then
    echo "usage: bash test_all.sh ARCH ATTN GAUSSIAN_STD PAMR GPU LOG_PATH [more eval.py options]" >&2
    exit 2
fi
gpu=$5 log=$6
options=()
flags=(--arch --attn --std --pamr)
for i in "${!flags[@]}"; do
    value=${*:i+1:1}
    if [[ $value != - ]]; then options+=("${flags[i]}" "$value"); fi
done
options+=("${@:7}")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python}
# From the options to a folder's name: letters, digits and . + = stay; a long one ends in a checksum.
name=$(LC_ALL=C tr -cs 'A-Za-z0-9.+=\n' '_' <<<"${options[*]-}")
name=${name#_}
if ((${#name} > 120)); then name=${name:0:100}_$(cksum <<<"$name" | cut -d ' ' -f 1); fi
work_dir=${WORK_DIR:-work_dirs/test_all/${name:-default}}
resume=(--resume)
if [[ ${RESUME:-1} == 0 ]]; then resume=(); fi
read -ra benchmarks <<<"${BENCHMARKS:-voc21 context60 coco_object voc20 city_scapes context59 ade20k coco_stuff164k}"

device=cuda:$gpu
if [[ $gpu == cpu ]]; then device=cpu; fi
if [[ -d $log || $log == */ ]]; then log=${log%/}/test_all.log; fi
mkdir -p "$(dirname "$log")" "$work_dir" || exit 1

# Several methods are a folder each, below the work directory.
methods=() listing=0
for option in ${options[@]+"${options[@]}"}; do
    if [[ $option == --* ]]; then listing=0; fi
    if ((listing)); then methods+=("$(sed -E 's|.*/||; s/[^A-Za-z0-9.+=-]+/_/g' <<<"$option")"); fi
    if [[ $option == --method ]]; then listing=1 methods=(); fi
done
if ((${#methods[@]} < 2)); then methods=(); fi

evaluate_all() {
    local configs=() place=$work_dir benchmark status=0 failed
    for benchmark in "${benchmarks[@]}"; do configs+=("$here/configs/cfg_$benchmark.py"); done
    if ((${#configs[@]} == 1 && ${#methods[@]} == 0)); then place=$work_dir/${benchmarks[0]}; fi
    echo "results: $work_dir"
    told=$(mktemp)
    "$python" "$here/eval.py" --config "${configs[@]}" --device "$device" --work-dir "$place" \
        ${resume[@]+"${resume[@]}"} ${options[@]+"${options[@]}"} 2>&1 | tee "$told"
    status=${PIPESTATUS[0]}
    # Runs say so, one a line, when they cannot be evaluated; a single one ends the command.
    failed=$(sed -nE 's/^([^ ]+): not evaluated: .*/\1/p' "$told")
    if ((status && ${#configs[@]} == 1 && ${#methods[@]} == 0)); then failed=${benchmarks[0]}; fi
    rm -f "$told"
    echo "=== all"
    # shellcheck disable=SC2086
    "$python" "$here/tools/compare_published.py" "$work_dir" "${benchmarks[@]}" \
        ${methods[@]+--methods "${methods[@]}"} ${failed:+--without $failed}
    if [[ $failed ]]; then echo "not evaluated:" $failed "(the reasons are above, and in $log)"; fi
    return "$status"
}

evaluate_all 2>&1 | tee "$log"
