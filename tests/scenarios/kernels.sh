#!/bin/bash
# Debian's kernels of three releases reach user space as dom0, and warn of nothing of which they do not warn on real Xen.
# Time: quick
# Limit: 500
# On: hospes
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# Kernel messages of level warning and worse, without what differs from boot to boot.
warnings() { sed -nE 's/^<[0-4]>\[ *[0-9.]+\] //p' | sed -E 's/0x[0-9a-f]+|[0-9a-f]{8,}|[0-9]+/N/g' | sort -u; }

known=$(grep -vE '^(#|$)' "$ROOT/tests/scenarios/kernel-warnings.txt" || true)
for kernel in bookworm trixie newest; do
    for hypervisor in hospes xen; do
        COMMON=(--profile "${HOSPES_PROFILE:-checked}")
        [ $hypervisor = hospes ] || COMMON=(--hypervisor xen)
        status dom0 --kernel $kernel --smp 2 --exec 'uname -r >&2; dmesg -r'
        equal "status of $kernel on $hypervisor" "$STATUS" 0
        warnings <"$SCENARIO_TEMP/out" >"$SCENARIO_TEMP/$hypervisor"
        echo "$kernel on $hypervisor: $ERR, $(wc -l <"$SCENARIO_TEMP/$hypervisor") different warnings"
    done
    new=$(comm -23 "$SCENARIO_TEMP/hospes" "$SCENARIO_TEMP/xen")
    [ -z "$known" ] || new=$(grep -vE "$known" <<<"$new" || true)
    equal "warnings of $kernel that real Xen does not cause" "$new" ""
done
