#!/usr/bin/env bash
# Weak scaling: samples, shards, drawn samples and mini-batches grow with the ranks, so that each has the same work. The
# options say the work of one rank: --samples 16 --ro-samples 16 --ro-batch 1 unless given.
#   slurm/scaling/weak.sh FOLDER --sizes 1,2,4,8 --repeats 3 --model synthetic:llama-2-70b --calibration synthetic:128x2048 \
#       --gpus-per-node 8 --partition gpu
# FOLDER/report.html shows times, speed-up, efficiency, phases and communication once all jobs have ended.
KIND=weak
# shellcheck source=slurm/scaling/study.sh
source "$(dirname "$(readlink -f "$0")")/study.sh"
