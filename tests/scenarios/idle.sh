#!/bin/bash
# An idle machine is idle: with dom0 and three idle domUs QEMU uses less than 10 % of a CPU over 30 s.
# Time: quick
# Limit: 300
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# shellcheck disable=SC2016 # dom0's shell expands these
commands='
for name in a b c; do
    write_cfg $name "memory = 96" "extra = \"console=hvc0\""
    dom create /run/$name.cfg
done
for name in a b c; do expect $name "guest up" 120; done
sleep 10
echo ready
sleep 40
audit >&2'
dom0 --smp 2 --memory 1536 --timeout "$(seconds 280)" --qemu -pidfile --qemu "$SCENARIO_TEMP/pid" \
    --exec "$(dom0_commands "$commands")" >"$SCENARIO_TEMP/out" &
front=$!
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
