#!/bin/bash
# Twelve guests at once: all come up, answer on their consoles, and then the machine is idle: QEMU uses less than 10 % of a
# CPU over 30 s. All stop when they are asked to. The hypervisor keeps at most 20 kB for each beside the pages it sees
# (guests-100.sh measures that more exactly).
# Time: quick
# Limit: 400
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# shellcheck disable=SC2016 # dom0's shell expands these
commands='
names=$(seq 12 | sed s/^/g/)
# The first one makes the hypervisor keep things that the others use, too.
write_cfg first "memory = 96" "extra = \"console=hvc0\""
dom create /run/first.cfg
expect first "guest up" 180
dom destroy first
others=$(pages_of_others)
for name in $names; do
    write_cfg $name "memory = 96" "extra = \"console=hvc0\""
    dom create /run/$name.cfg
done
for name in $names; do expect $name "guest up" 180; done
for name in $names; do input $name "echo \$((6 * 7)) answers"; done
for name in $names; do expect $name "^42 answers"; done
kept=$(((others - $(pages_of_others)) * 4096 / 12))
echo "the hypervisor keeps $kept bytes for each"
[ "$HYPERVISOR" = xen ] || [ $kept -le 20480 ] || fail "that is more than 20 kB"
sleep 10
echo ready
sleep 40
for name in $names; do input $name "poweroff -f"; done
for name in $names; do until_true 60 eval "! domid $name" || fail "$name is still there"; done
audit >&2'
dom0 --smp 2 --memory 2048 --timeout "$(seconds 380)" --qemu -pidfile --qemu "$SCENARIO_TEMP/pid" \
    --exec "$(dom0_commands "$commands")" >"$SCENARIO_TEMP/out" &
front=$!
: >>"$SCENARIO_TEMP/out"
until grep -q ready "$SCENARIO_TEMP/out"; do
    kill -0 $front 2>/dev/null || fail "dom0 ended early"
    sleep 0.5
done

# ticks: CPU time QEMU has used, in clock ticks (user and system, the 14th and 15th field).
ticks() { sed 's/.*) //' "/proc/$(cat "$SCENARIO_TEMP/pid")/stat" | awk '{ print $12 + $13 }'; }
before=$(ticks)
sleep 30
percent=$((($(ticks) - before) * 100 / (30 * $(getconf CLK_TCK))))
echo "QEMU used $percent % of a CPU over 30 s"
[ $percent -lt 10 ] || fail "that is 10 % or more"
wait $front
