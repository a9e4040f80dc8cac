#!/usr/bin/env bash
# Strong scaling: the same pruning run on more and more machines or ranks.
#   slurm/scaling/strong.sh FOLDER --sizes 1,2,4,8 --repeats 3 --model synthetic:llama-2-70b --calibration synthetic:128x2048 \
#       --ro-batch 8 --gpus-per-node 8 --partition gpu
# FOLDER/report.html shows times, speed-up, efficiency, phases and communication once all jobs have ended.
KIND=strong
# shellcheck source=slurm/scaling/study.sh
source "$(dirname "$(readlink -f "$0")")/study.sh"
