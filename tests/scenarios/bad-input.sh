#!/bin/bash
# `dom create` with bad input: one readable line, a non-zero status, and nothing left behind.
# Time: quick
# Limit: 300
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# shellcheck disable=SC2016 # dom0's shell expands these
in_dom0 --smp 2 --memory 1536 '
before=$(free_pages)
# refused WORD NAME: creating it fails with one line that has the word in it.
refused() {
    if dom create "/run/$2.cfg" >/run/out 2>/run/err; then fail "$2 was created"; fi
    [ "$(wc -l </run/err)" = 1 ] || fail "$2: not one line: $(cat /run/err)"
    grep -qiE -- "$1" /run/err || fail "$2: no \"$1\" in: $(cat /run/err)"
    echo "$2: $(cat /run/err)"
    [ ! -s /run/out ] || fail "$2: says on stdout: $(cat /run/out)"
    ! domid "$2" || fail "$2 is still there"
    until_true 10 eval "[ \$(free_pages) = $before ]" || fail "$2: memory is gone: $before pages free before, $(free_pages) after"
}
write_cfg missing "kernel = \"/boot/nothing\"" "memory = 96"
refused "/boot/nothing" missing
head -c 100000 /boot/vmlinuz-guest >/run/truncated
write_cfg truncated "kernel = \"/run/truncated\"" "memory = 96"
refused "/run/truncated" truncated
cp /boot/vmlinuz-guest /run/corrupt
dd if=/dev/zero of=/run/corrupt bs=1000 seek=2000 count=50 conv=notrunc 2>/dev/null
write_cfg corrupt "kernel = \"/run/corrupt\"" "memory = 96"
refused "/run/corrupt" corrupt
write_cfg nopv "kernel = \"/bin/busybox\"" "memory = 96"
refused "/bin/busybox" nopv
write_cfg big "memory = 100000"
refused "memory" big
write_cfg badline "memory = 96" "vcpus = = 2"
refused "badline.cfg:[0-9]*|line [0-9]" badline
write_cfg noinitrd "memory = 96" "ramdisk = \"/boot/no-initrd\""
refused "/boot/no-initrd" noinitrd
if dom create /run/none.cfg 2>/run/err; then fail "a missing configuration was accepted"; fi
grep -q /run/none.cfg /run/err

write_cfg twice "memory = 96"
# Paused, because a guest that boots takes pages for itself that the hypervisor counts as its own.
dom create -p /run/twice.cfg
before=$(free_pages)
if dom create /run/twice.cfg >/run/out 2>/run/err; then fail "a name was given twice"; fi
cat /run/err
grep -q twice /run/err
[ "$(free_pages)" = "$before" ]
dom list | grep -c twice | grep -qx 1
dom destroy twice
if dom destroy twice 2>/run/err; then fail "destroyed twice"; fi
cat /run/err'
