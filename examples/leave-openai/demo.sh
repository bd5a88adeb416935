#!/usr/bin/env bash
# The whole journey on one machine: a scripted account is left for the small local model. `make migrate-demo` runs this.
# FTBRIDGE names the command, BASE another local model; FTBRIDGE_HOME (default .ftbridge/leave-openai) holds everything, and is safe to remove.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
ftbridge=${FTBRIDGE:-ftbridge}
base=${BASE:-smollm2-135m-instruct}
export FTBRIDGE_HOME=${FTBRIDGE_HOME:-$PWD/.ftbridge/leave-openai}
export SUPPORT_KEY=sk-support-demo-000000000001 CONTENT_KEY=sk-content-demo-000000000002
export OPENAI_ADMIN_KEY=sk-admin-demo-0000000000003
mkdir -p "$FTBRIDGE_HOME"

# step STATUS COMMAND…: show a command, run it, and go on only if it ends with one of the statuses that are expected here.
step() {
  local expected=$1 status=0
  shift
  printf '\n\033[1m$ ftbridge %s\033[0m\n' "$*"
  $ftbridge "$@" || status=$?
  case " $expected " in *" $status "*) ;; *) echo "ended with $status" >&2; exit 1 ;; esac
  if [ "$status" -ne 0 ]; then echo "(exit status $status)"; fi
}

echo "The service: a simulator that plays the account of account.yaml."
$ftbridge simulate --account "$here/account.yaml" --port 0 --json -q > "$FTBRIDGE_HOME/simulator.json" 2> "$FTBRIDGE_HOME/simulator.log" &
simulator=$!
trap 'kill $simulator 2>/dev/null || true' EXIT
for _ in $(seq 100); do grep -q '^}' "$FTBRIDGE_HOME/simulator.json" 2>/dev/null && break; sleep 0.2; done
base_url=$(sed -n 's/.*"base_url": "\(.*\)".*/\1/p' "$FTBRIDGE_HOME/simulator.json")

# Day 1: what there is, and what can be fetched. 1: two files are gone or refused, and are named.
step 0 migrate inventory --key-env SUPPORT_KEY --key-env CONTENT_KEY --base-url "$base_url"
step 1 migrate download --stored

# Day 2: record. The first batch expires, the second overflows the queue; a model stops half-way, and what it said by then stays.
step 0 migrate record triage-v2 --way batch --yes
step "1 5" migrate record draft --way live --yes
step "0 4" migrate status

# Days 3 to 5: train the replacement here, and prove it. From now on the service is not needed any more.
kill $simulator
step 0 migrate retrain triage-v2 --base "$base" --yes \
  --set hyperparameters.learning_rate_multiplier=5 --set local.max_length=512 --set local.quantization=none
step "0 4" migrate prove triage-v2 latest --margin 0.15
step "0 4" migrate serve --check --map "ft:gpt-4.1-mini-2025-04-14:lumen:triage-v2:triage2=latest"
step "0 4" migrate status
find "$FTBRIDGE_HOME/migrations" -name 'proof.html' -o -name 'inventory.html' | sed 's/^/page  /'
