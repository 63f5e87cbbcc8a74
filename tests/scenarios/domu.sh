#!/bin/bash
# Stock kernels as domU: Debian's 6.1, 6.12 and its newest, with one and two vCPUs and different sizes, with a console that answers.
# Time: quick
# Limit: 500
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# dom0 gets the other kernels on a disk, as an archive.
for kernel in trixie newest; do
    "$FRONT" build --hypervisor xen --kernel $kernel --direct
    cp "${HOSPES_CACHE:-$ROOT/.cache}"/kernels/$kernel/boot/vmlinuz-* "$SCENARIO_TEMP/vmlinuz-$kernel"
done
tar -C "$SCENARIO_TEMP" -cf "$SCENARIO_TEMP/kernel.tar" vmlinuz-trixie vmlinuz-newest

# With the check of entries that are not present, as on CPUs that need it: Linux must never meet it.
# shellcheck disable=SC2016 # dom0's shell expands these
in_dom0 --hypervisor-append pv-l1tf=1 --smp 2 --timeout "$(seconds 350)" --memory 3072 --disk "$SCENARIO_TEMP/kernel.tar" '
tar -C /boot -xf /dev/vda
number=0
for guest in guest:1:96 guest:2:512 trixie:1:128 trixie:2:256 newest:2:256; do
    number=$((number + 1))
    kernel=${guest%%:*} memory=${guest##*:} vcpus=${guest#*:}
    vcpus=${vcpus%:*} name=g$number
    write_cfg $name "kernel = \"/boot/vmlinuz-$kernel\"" "memory = $memory" "vcpus = $vcpus" "extra = \"console=hvc0\""
    dom create /run/$name.cfg
    expect $name "guest up" 90
    input $name "echo \$((6 * 7)) answers on \$(nproc) CPUs, \$(uname -r)"
    expect $name "^42 answers on $vcpus CPUs"
    expect $name "echo ..\(6 \* 7\). answers"
    console $name | grep "^42 answers"
    dom destroy $name
    ! domid $name
done
audit'
has "the kernels" "$OUT" "42 answers on 2 CPUs, 6\.1\."
has "the kernels" "$OUT" "42 answers on 2 CPUs, 6\.12\."
has "the kernels" "$OUT" "42 answers on 2 CPUs, [7-9]\."
