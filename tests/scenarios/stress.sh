#!/bin/bash
# Ten minutes of forks, mappings and signals in dom0 on two vCPUs: no warning, and the audit is clean.
# Time: long
# Limit: 900
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# shellcheck disable=SC2016 # dom0's shell expands these
in_dom0 --smp 2 --timeout "$(seconds 850)" "seconds=${SCENARIO_STRESS_SECONDS:-600}"'
dmesg -c >/dev/null
end=$(($(cut -d. -f1 /proc/uptime) + seconds))
going() { [ "$(cut -d. -f1 /proc/uptime)" -lt $end ]; }
# Processes that come and go, three deep, through pipes.
forks() { while going; do for i in 1 2 3 4 5 6 7 8; do (echo $i | cat | cat >/dev/null); done; done; }
# Big mappings that are made, touched and dropped; libraries mapped by each dynamic program.
maps() { while going; do dd if=/dev/zero of=/dev/null bs=24M count=2 2>/dev/null; xenstore-ls >/dev/null; done; }
# Files in memory, so that the page cache grows and shrinks.
files() { while going; do dd if=/dev/urandom of=/run/file.$1 bs=64k count=100 2>/dev/null; gzip -c /run/file.$1 | gunzip >/dev/null; rm /run/file.$1; done; }
# Signals between two processes.
signals() {
    sh -c "trap : USR1; while :; do sleep 1; done" & target=$!
    # Not before it has set its trap: the first signal would end it.
    sleep 1
    while going; do for i in 1 2 3 4 5 6 7 8 9; do kill -USR1 $target; done; usleep 1000; done
    kill -9 $target
}
forks & forks & maps & maps & files a & files b & signals &
wait
# A host that does not run an emulated CPU for a while looks like a slow interrupt from inside; all else counts.
dmesg -r | grep -v "hrtimer: interrupt took" | grep "^<[0-4]>" && fail "the kernel warned"
audit'
