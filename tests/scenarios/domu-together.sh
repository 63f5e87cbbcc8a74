#!/bin/bash
# Three domUs at once all make progress while one of them spins; a domU that panics and one that
# faults with no handler leave the others alone, and are shown as crashed.
# Time: quick
# Limit: 400
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

gcc -nostdlib -static -no-pie -Wl,-Ttext=0x100000,--build-id=none -o "$SCENARIO_TEMP/faulting" "$ROOT/tests/scenarios/faulting-guest.S"
tar -C "$SCENARIO_TEMP" -cf "$SCENARIO_TEMP/disk" faulting

# shellcheck disable=SC2016 # dom0's shell expands these
in_dom0 --smp 2 --timeout "$(seconds 350)" --memory 2048 --disk "$SCENARIO_TEMP/disk" '
tar -C /boot -xf /dev/vda
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
write_cfg fault "kernel = \"/boot/faulting\"" "memory = 32"
dom create /run/fault.cfg
for name in crash fault; do
    until_true 20 sh -c "dom list | grep $name | grep -i crashed" || fail "dom list does not show that $name crashed"
done
for name in one two; do
    now=$(console $name | grep -c "^count")
    expect $name "^count $((now + 3))$"
done
dom list
for name in crash fault spin one two; do dom destroy $name; done
audit'
