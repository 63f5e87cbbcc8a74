#!/bin/bash
# The fuzzer guest with two vCPUs on two CPUs for half an hour: a quiet domU beside it answers every ten seconds, nobody
# else is hurt, and when all is over the audit is clean and the memory is back. SCENARIO_FUZZ_SECONDS and
# SCENARIO_FUZZ_SEED choose another length and another sequence.
# Time: long
# Limit: 2700
# On: hospes
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

length=${SCENARIO_FUZZ_SECONDS:-1800}
seed=${SCENARIO_FUZZ_SEED:-$(date +%s)}
(cd "$ROOT" && cargo build -q --release --target x86_64-unknown-none -p guests --bin fuzz)
cp "${CARGO_TARGET_DIR:-$ROOT/target}/x86_64-unknown-none/release/fuzz" "$SCENARIO_TEMP/fuzz"
tar -C "$SCENARIO_TEMP" -cf "$SCENARIO_TEMP/disk" fuzz

# shellcheck disable=SC2016 # dom0's shell expands these
in_dom0 --smp 2 --memory 1536 --disk "$SCENARIO_TEMP/disk" --timeout "$((length + $(seconds 600)))" "length=$length seed=$seed"'
tar -C /boot -xf /dev/vda
in_audit() { sed -n "s/.*\"$2\": *\([0-9]*\).*/\1/p" /run/$1.json; }
dom debug audit --json >/run/before.json
before=$(in_audit before free_frames)
write_cfg quiet "memory = 96" "extra = \"console=hvc0\""
dom create /run/quiet.cfg
expect quiet "guest up" 120
write_cfg fuzz "kernel = \"/boot/fuzz\"" "memory = 128" "vcpus = 2" "extra = \"seed=$seed seconds=$length\"" \
    "on_poweroff = \"preserve\"" "on_crash = \"preserve\""
dom create /run/fuzz.cfg
ended() { dom list | grep -E "^fuzz .*(off|crashed)" >/dev/null; }
end=$(($(cut -d. -f1 /proc/uptime) + length + 120 * SLOW))
answers=0 slowest=0
until ended; do
    [ "$(cut -d. -f1 /proc/uptime)" -lt $end ] || { console fuzz | tail -n 40; dom list; fail "the fuzzer did not end"; }
    answers=$((answers + 1))
    start=$(cut -d. -f1 /proc/uptime)
    input quiet "echo answer \$(($answers + 0))."
    expect quiet "^answer $answers\\." 30
    took=$(($(cut -d. -f1 /proc/uptime) - start))
    [ $took -le $slowest ] || slowest=$took
    sleep 10
done
dom list
console fuzz | tail -n 30
echo "seed $seed: the quiet domU answered $answers times, the slowest answer took $slowest s"
dom list | grep "^fuzz .*off" || { dom debug audit; dom dmesg | tail -n 60; fail "the fuzzer crashed, or saw something wrong"; }
printed fuzz "^VERDICT: pass" || fail "the fuzzer did not say that all is well"
[ $answers -ge $((length / 20)) ] || fail "the quiet domU was asked too seldom"
audit
for name in fuzz quiet; do dom destroy $name; done
audit
# What is not back the hypervisor has: its heap keeps pages it has grown by, and hardly more is in use than before (dom0
# has room for a few more grants and events).
alone() { dom debug audit --json >/run/after.json; [ "$(in_audit after domains)" = 1 ]; }
until_true 30 alone || fail "the domains are not gone"
after=$(in_audit after free_frames)
own=$(($(in_audit after hypervisor_frames) - $(in_audit before hypervisor_frames)))
heap=$((($(in_audit after heap_bytes) - $(in_audit before heap_bytes)) / 4096))
used=$((($(in_audit after heap_used) - $(in_audit before heap_used)) / 1024))
echo "free pages: $before before, $after after; the hypervisor has $own more, its heap $heap of them, $used KiB in use"
[ $((before - after)) -le $own ] || fail "$((before - after - own)) pages are lost"
[ $((own - heap)) -le 8 ] || fail "the hypervisor kept $((own - heap)) pages beyond its heap"
# One domain in use of all its limits allow: a KiB for 64 grants of 64 frames of them, 1.5 for each 128 of 4096 ports, and holes.
[ $heap -le 192 ] || fail "the heap grew by $heap pages"
[ $used -le 16 ] || fail "$used KiB of the heap are still in use"
'
