#!/bin/bash
# A machine with 4 CPUs and 16 GiB: dom0 and a domU with more than 4 GiB each use all of it, from a BIOS and from UEFI.
# Time: long
# Limit: 900
# On: hospes
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# fills MIB: shell commands that fill that much memory with a file in it, and read marks back from all over it.
fills() {
    cat <<END
mount -t tmpfs -o size=$1m tmpfs /mnt
dd if=/dev/zero of=/mnt/full bs=1M count=$1 2>/dev/null
i=0; while [ \$i -lt $1 ]; do echo mark\$i | dd of=/mnt/full bs=1M seek=\$i conv=notrunc 2>/dev/null; i=\$((i + 100)); done
i=0; while [ \$i -lt $1 ]; do dd if=/mnt/full bs=1M skip=\$i count=1 2>/dev/null | grep -qam 1 "^mark\$i\$" || echo "lost mark\$i"; i=\$((i + 100)); done
umount /mnt
echo filled $1
END
}

for way in "" --uefi; do
    # shellcheck disable=SC2016,SC2086 # dom0's shell expands these; an empty way is no argument
    in_dom0 $way --smp 4 --memory 16384 --dom0-mem 5120 --timeout "$(seconds 420)" '
mkdir -p /mnt
[ "$(nproc)" = 4 ]
[ "$(awk "/MemTotal/ { print \$2 }" /proc/meminfo)" -gt 5000000 ] || fail "dom0 has only $(grep MemTotal /proc/meminfo)"
'"$(fills 4400)"'
before=$(free_pages)
guest='\''mkdir -p /mnt; sed -n "s/^MemTotal: *//p" /proc/meminfo | sed s/^/total:/; echo cpus:$(nproc)
'"$(fills 4400)"''\''
write_cfg big "memory = 5120" "vcpus = 4" "extra = \"console=hvc0 $(run_word "$guest")\""
dom create /run/big.cfg
expect big "^filled 4400" 150
! console big | grep "^lost" || fail "the guest lost data"
console big | grep -x "cpus:4"
[ "$(console big | sed -n "s/^total:\([0-9]*\).*/\1/p")" -gt 4900000 ] || fail "the guest has too little memory"
dom destroy big
until_true 20 eval "[ \$(free_pages) -ge $((before - 2000)) ]" || fail "$before pages free before, $(free_pages) after"
audit'
    has_not "dom0" "$OUT" "^lost"
done
