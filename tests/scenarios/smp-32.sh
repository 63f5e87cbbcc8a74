#!/bin/bash
# A stock guest with 32 vCPUs on a machine with two CPUs: all come up, all work, and they are taken away and given again.
# Time: long
# Limit: 900
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# shellcheck disable=SC2016 # dom0's shell expands these
in_dom0 --smp 2 --memory 1536 --timeout "$(seconds 850)" '
write_cfg wide "memory = 384" "vcpus = 32" "extra = \"console=hvc0\""
dom create /run/wide.cfg
expect wide "guest up" 400
cpus() { input wide "echo \"$1 \$(nproc)\""; expect wide "^$1 $2\$" 60; echo "the guest has $2 CPUs"; }
cpus begin 32

# Each of them works for a second, pinned to it, at the same time as all others.
input wide "for n in \$(seq 0 31); do taskset -c \$n sh -c \"end=\\\$((\\\$(date +%s) + 3)); while [ \\\$(date +%s) -lt \\\$end ]; do :; done; echo worked \$n\" & done; wait; echo \"all wo\"rked"
expect wide "^all worked" 200
n=0
while [ $n -lt 32 ]; do printed wide "^worked $n\$" || fail "vCPU $n has not worked"; n=$((n + 1)); done
dom vcpu-list wide
[ $(dom vcpu-list wide --json | sed -n "s/.*\"cpu_time_ns\": *\([0-9]*\).*/\1/p" | awk "\$1 > 10000000" | wc -l) = 32 ] || fail "not all vCPUs have run"

dom vcpu-set wide 3 --wait --timeout 300
cpus few 3
dom vcpu-set wide 8
# What udev does in a larger guest.
input wide "for n in 3 4 5 6 7; do echo 1 >/sys/devices/system/cpu/cpu\$n/online; done"
dom vcpu-set wide 8 --wait --timeout 300
cpus more 8
dom shutdown wide --wait
audit'
