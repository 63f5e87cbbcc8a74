#!/bin/bash
# A real Debian guest: systemd to a login on the console, ssh from dom0, its own memory, cache and swap, modules, its own
# kernel through GRUB's PV build.
# Time: long
# Limit: 900
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=guest/lib.sh
source "$ROOT/tests/scenarios/guest/lib.sh"
guests 2

# shellcheck disable=SC2016 # dom0's shell expands these
in_dom0_with_guests --hypervisor-append pv-l1tf=1 --smp 2 --memory 2048 --timeout "$(seconds 600)" '
guest_cfg 1 "memory = 256" "vcpus = 2"
start_guest 1

# A person at the console.
input g1 root
expect g1 "root@g1:~#"
input g1 "echo \$((6 * 7)) at the console"
expect g1 "42 at the console"

# Everything systemd starts has started.
until_true 120 in_guest 1 "systemctl is-system-running | grep -qvE \"^(starting|initializing)\""
[ -z "$(in_guest 1 systemctl --failed --no-legend)" ] || fail "units failed: $(in_guest 1 systemctl --failed --no-legend)"
in_guest 1 "uname -rv; nproc; free -k"
[ "$(in_guest 1 nproc)" = 2 ]

# Memory: 256 MiB less what the kernel keeps; a cache that grows with what is read.
in_guest 1 free -k >/run/free
awk "/^Mem:/ && (\$2 < 200000 || \$2 > 262144) { exit 1 }" /run/free || fail "its total is wrong"
awk "/^Swap:/ && \$2 != 262140 { exit 1 }" /run/free ||
    fail "its swap is wrong: $(in_guest 1 "systemctl --no-pager -l status dev-xvda2.swap dev-xvda2.device; journalctl -b --no-pager -p notice | tail -n 40" 2>&1)"
in_guest 1 "echo 3 >/proc/sys/vm/drop_caches; grep -E \"^(Buffers|Cached)\" /proc/meminfo; cat /usr/lib/x86_64-linux-gnu/*.so* >/dev/null; grep -E \"^(Buffers|Cached)\" /proc/meminfo" | tee /run/cache
set -- $(sed -n "s/^Cached: *\([0-9]*\).*/\1/p" /run/cache)
[ $(($2 - $1)) -gt 30000 ] || fail "the cache went from $1 to $2 KiB"

# Swap under pressure: a process larger than the memory there is.
in_guest 1 "head -c 250000000 /dev/zero | tail -n 1 | wc -c" | grep -qx 250000000
in_guest 1 "grep -E \"^pswp(in|out)\" /proc/vmstat; free -k | grep Swap" | tee /run/swap
[ "$(sed -n "s/^pswpout //p" /run/swap)" -gt 10000 ] || fail "it did not swap"

# Modules come from its own disk.
in_guest 1 "modprobe -v dm_crypt && lsmod | grep -E \"^dm_crypt\" && modprobe -r dm_crypt"

# The other one brings its own kernel: GRUB reads its disk.
write_cfg g2 "kernel = \"/boot/guest.img.grub\"" "ramdisk = \"\"" "memory = 256" "disk = [ \"phy:/dev/vdd,xvda,w\" ]"
dom create /run/g2.cfg
expect g2 "guest login:" 200
input g2 root
expect g2 "root@guest:~#"
input g2 "cat /proc/cmdline; uname -r | sed s/^/own:/"
expect g2 "^own:6\.1\."
console g2 | grep "Command line: .*root=/dev/xvda1 ro console=hvc0" || fail "GRUB gave it another command line"

# They power off as machines do.
input g2 "poweroff"
in_guest 1 "systemctl poweroff" || true
until_true 90 eval "! domid g1 && ! domid g2" || fail "they are still there"
audit'
