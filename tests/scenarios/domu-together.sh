#!/bin/bash
# Three domUs at once all make progress while one of them spins; a domU that panics leaves the others alone.
# Time: quick
# Limit: 400
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# shellcheck disable=SC2016 # dom0's shell expands these
in_dom0 --smp 2 --memory 2048 '
count='\''i=0; while :; do i=$((i + 1)); echo "count $i"; sleep 1; done'\''
write_cfg spin "memory = 96" "extra = \"console=hvc0 $(run_word "echo spinning; while :; do :; done")\""
write_cfg one "memory = 96" "extra = \"console=hvc0 $(run_word "$count")\""
write_cfg two "memory = 96" "extra = \"console=hvc0 $(run_word "$count")\""
for name in spin one two; do dom create /run/$name.cfg; done
expect spin "^spinning" 120
for name in one two; do expect $name "^count 3$" 120; done
dom list

write_cfg crash "memory = 96" "extra = \"console=hvc0 $(run_word "echo c >/proc/sysrq-trigger")\""
dom create /run/crash.cfg
expect crash "Kernel panic" 120
until_true 20 sh -c "dom list | grep crash | grep -i crashed" || fail "dom list does not show the crash"
for name in one two; do
    now=$(console $name | grep -c "^count")
    expect $name "^count $((now + 3))$"
done
dom list
for name in crash spin one two; do dom destroy $name; done
audit'
