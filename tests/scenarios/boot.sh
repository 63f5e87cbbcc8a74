#!/bin/bash
# dom0 comes up on 1, 2 and 4 CPUs, through GRUB's ISO and with --direct, and the machine powers off.
# Time: quick
# Limit: 400
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

for way in "" --direct; do
    for cpus in 1 2 4; do
        # shellcheck disable=SC2086 # an empty way is no argument
        status dom0 $way --smp $cpus --serial-log "$SCENARIO_TEMP/serial" --exec 'cat /sys/hypervisor/type; nproc'
        equal "status with $cpus CPUs${way:+, $way}" "$STATUS" 0
        equal "stdout" "$OUT" "xen
$cpus"
        equal "stderr" "$ERR" ""
        has "a clean end" "$(cat "$SCENARIO_TEMP/serial")" "reboot: Power down"
    done
done
