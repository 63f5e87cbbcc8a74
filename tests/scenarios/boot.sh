#!/bin/bash
# dom0 comes up on 1, 2 and 4 CPUs, through GRUB's ISO and with --direct, and from UEFI with memory above 4 GiB, and the
# machine powers off.
# Time: quick
# Limit: 450
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# up CPUS OPTION...
up() {
    local cpus=$1
    shift
    status dom0 "$@" --smp "$cpus" --serial-log "$SCENARIO_TEMP/serial" --exec 'cat /sys/hypervisor/type; nproc; dmesg >&2'
    equal "status with $cpus CPUs, $*" "$STATUS" 0
    equal "stdout" "$OUT" "xen
$cpus"
    has "a clean end" "$(cat "$SCENARIO_TEMP/serial")" "reboot: Power down"
}
for cpus in 1 2 4; do
    up $cpus
    up $cpus --direct
done
up 2 --uefi --memory 6144
has "dom0 knows the firmware" "$ERR" "efi: EFI v.* by .*EDK II"
has "dom0 has ACPI's tables" "$ERR" "ACPI: RSDP 0x"
has "dom0 has SMBIOS' tables" "$ERR" "DMI: QEMU"
[ "$SCENARIO_HYPERVISOR" = xen ] ||
    has "Hospes uses the memory above 4 GiB" "$(cat "$SCENARIO_TEMP/serial")" "\(HOS\) 6[01][0-9][0-9] MiB of RAM"
