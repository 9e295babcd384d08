#!/bin/bash
# First measurements on a machine with one NVIDIA GPU: bash benchmarks/speed/gpu/measure.sh OUT
#
# From the repository's root, with jax[cuda13], a CUDA build of torch, onnxruntime-gpu, and the extras
# bench and export installed. What is wanted most comes first, every line is written as it comes, about
# fifteen minutes. NEVER RUN YET: no GPU was at hand. "float32" means TF32 on both sides.
set -u
out=$1
mkdir -p "$out"
export PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false

say() { echo "== $*" | tee -a "$out/log.txt"; }
run() { # seconds, name, command: a step that fails or takes too long leaves the others alone
  local limit=$1 name=$2
  shift 2
  say "$name: $*"
  timeout "$limit" "$@" 2>&1 | tee "$out/$name.txt"
}

nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem --format=csv | tee "$out/gpu.csv"
run 60 versions python -c 'import jax, torch; print(jax.__version__, jax.devices(), torch.__version__)'
# Does cuDNN take every convolution in bfloat16, forward and backward? (jax issue 37922: strided, dilated)
run 200 convolutions python -m benchmarks.speed.gpu.convolutions
run 240 latency python -m benchmarks.speed.latency --out "$out/latency.json" --device gpu --calls 50 \
  --cases 512:1 512:8 --turns 5 --only covid_jax 'channels_last compile' onnxruntime  # CUDA graphs, IO binding
run 240 training python -m benchmarks.speed.training --out "$out/training.json" --device gpu --calls 10 \
  --cases 512:8 --turns 4 --only 'covid_jax float32' 'covid_jax bfloat16' 'channels_last compile bfloat16' 'CUDA graphs'
say "what a command buffer saves: the same forward pass without"
XLA_FLAGS=--xla_gpu_enable_command_buffer= run 120 no_command_buffer python -m benchmarks.speed.latency \
  --out "$out/no_command_buffer.json" --device gpu --calls 50 --cases 512:1 --turns 3 --only covid_jax
