#!/bin/bash
# Training on the nodes of a Slurm job: sbatch --nodes=2 slurm.sh run.yaml [-o KEY=VALUE ...]
#
# One launcher a node, which starts a process for each GPU that Slurm gave (NPROC=N: so many). The folder is on a disk that all nodes share.
# When a node dies, Slurm begins the job anew (--requeue); when a process does, the others end with status 75 and the script asks for it. A job
# that its time limit stops gets TERM 120 s before and saves; sbatch with the same words goes on (--continue).
#SBATCH --job-name=nextvit-train
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -eu

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER=$(getent ahostsv4 "$first" | awk 'NR == 1 {print $1}')
PORT=$((20000 + SLURM_JOB_ID % 10000))  # two jobs may share a node
export MASTER PORT

# Runs once on each node, whose address is the one from which it reaches the first. The script itself lies on the first node alone.
on_a_node='
set -eu
host=$MASTER
if [ "$SLURM_NODEID" != 0 ]; then
    host=$(ip -4 route get "$MASTER" | sed -n "s/.* src \([0-9.]*\).*/\1/p")
fi
exec python -m paddle.distributed.launch --nnodes="$SLURM_NNODES" --master="$MASTER:$PORT" --rank="$SLURM_NODEID" --host="$host" \
    --job_id="$SLURM_JOB_ID" --log_dir="log/$SLURM_JOB_ID/$SLURM_NODEID" ${NPROC:+--nproc_per_node="$NPROC"} \
    "$(command -v nextvit)" train --continue -c "$@"
'
status=0
srun --kill-on-bad-exit=0 --wait=120 bash -c "$on_a_node" on_a_node "$@" || status=$?
case $status in
    75 | 137 | 247)  # a process was lost, or killed (247: of a launcher)
        if [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
            scontrol requeue "$SLURM_JOB_ID"
        fi
        ;;
esac
exit "$status"
