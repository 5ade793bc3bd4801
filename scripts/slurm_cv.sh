#!/usr/bin/env bash
# A cross-validation as a Slurm job array, a task per fold, then its summary and report. On a login node:
#   scripts/slurm_cv.sh RUN --data DATASET --config configs/paper.yaml --config configs/ablation.yaml
# makes RUN's folder and submits; what follows RUN goes to `btkeras cv`. Given again (RUN alone suffices), it submits
# what is left. RUN must lie on storage that all nodes share. A task that is cut off and requeued goes on after its
# last finished epoch.
#   SBATCH_OPTIONS   more options of sbatch            default: --gpus=1 --cpus-per-task=8 --time=24:00:00
#   MAX_TASKS        tasks that run at once            default: 16
set -euo pipefail
if [[ $# -eq 0 || $1 == -* ]]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
run=$1
shift
read -ra options <<<"${SBATCH_OPTIONS:---gpus=1 --cpus-per-task=8 --time=24:00:00}"

left=$(btkeras cv --plan --resume --out "$run" "$@" | awk '$2 != "finished" {print $1}' | paste -sd,)
logs=$run/logs
mkdir -p "$logs"
after=()
if [[ -n $left ]]; then
    array=$(sbatch --parsable --array="$left%${MAX_TASKS:-16}" --requeue --output="$logs/slurm_%a.log" "${options[@]}" \
        --wrap "btkeras cv --out '$run' --task \$SLURM_ARRAY_TASK_ID")
    after=(--dependency="afterok:${array%%;*}")
    echo "submitted tasks $left as job ${array%%;*}"
fi
sbatch --parsable "${after[@]}" --output="$logs/slurm_summary.log" --time=00:30:00 \
    --wrap "btkeras cv --resume --out '$run' && btkeras report '$run' --out '$run/report.html'"
