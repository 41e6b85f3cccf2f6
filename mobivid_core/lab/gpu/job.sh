#!/usr/bin/env bash
# Run on the GPU machine, from the repository's root: bash PACK/job.sh RESULTS MINUTES [options of `mobivid gpu run`]
# PACK is the folder that `mobivid gpu pack` wrote; RESULTS gets a few archives of at most 16 MiB each.
set -u
PACK=$(cd "$(dirname "$0")" && pwd) RESULTS=$1 MINUTES=$2
shift 2
RUN=${MOBIVID_GPU_RUN:-/dev/shm/mobivid-gpu} SITE=/tmp/mobivid-site
[ -d $SITE ] || python3 -m zipfile -e "$PACK/site.zip" $SITE
export PYTHONPATH=$SITE:$PWD PYTHONUNBUFFERED=1 OMP_NUM_THREADS=8 HF_HUB_OFFLINE=1
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=68719476736 MALLOC_TOP_PAD_=268435456
mkdir -p "$RUN" "$RESULTS"
nvidia-smi --query-gpu=name,memory.total --format=csv,noheader
python3 -m mobivid_core gpu run --profile gpu --minutes "$MINUTES" --out "$RUN" "$@"
for log in "$RUN"/*.txt; do echo "== $log"; tail -n 8 "$log" | cut -c1-420; done
cd "$RUN" || exit 1
tar cf "$RESULTS/misc.tar" $(ls -d judge pruned ./*.json ./*.txt ./*-clips.safetensors 2>/dev/null)
for part in vae vae-sharp teacher distilled-regression distilled-adversarial; do
  [ -d $part ] && tar cf "$RESULTS/$part.tar" $part
done
tar cf "$RESULTS/students.tar" $(ls -d student-* 2>/dev/null)
