#!/bin/bash
# The command line by itself: refusals, --help, and what --dry-run would start. No machine runs.
# Time: quick
# Limit: 240
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# refused PATTERN ARGUMENT...: status 2 and one line on stderr that matches.
refused() {
    local pattern=$1
    shift
    status "$FRONT" "$@"
    equal "status of $*" "$STATUS" 2
    equal "lines said by $*" "$(wc -l <<<"$ERR")" 1
    equal "stdout of $*" "$OUT" ""
    has "$*" "$ERR" "$pattern"
}
refused "unknown option '--frobnicate'" --frobnicate
refused "unknown command 'fly'" fly
refused "--smp wants a value" --smp
refused "--smp wants a number from 1 to" --smp 0
refused "--smp wants a number from 1 to" --smp=two
refused "--memory wants a number" --memory 1e9
refused "no readable file '/nonexistent'" --kernel /nonexistent
refused "no readable file '/nonexistent'" --disk ahci:/nonexistent
refused "no readable file '/nonexistent'" --hypervisor /nonexistent
refused "does not fit" --memory 512 --dom0-mem 512
refused "accel does not know 'hvf'" --accel hvf
refused "icount works with" --icount --accel kvm
refused "wants a command" --exec ""
refused "belongs to 'test'" --long
refused "does not go with --direct" --uefi --direct
refused "belong to 'guest-image'" --output "$SCENARIO_TEMP/disk"
refused "is no name of a package" guest-image --package 'a b'
: >"$SCENARIO_TEMP/disk"
status "$FRONT" guest-image --output "$SCENARIO_TEMP/disk"
equal "status of guest-image onto a disk that is there" "$STATUS" 1
has "what it says" "$ERR" "disk is there already"

status "$FRONT" --help
equal "status of --help" "$STATUS" 0
for option in exec smp memory dom0-mem kernel initrd append disk hypervisor direct icount gdb accel timeout dry-run uefi output size package setup; do
    has "--help" "$OUT" "--$option"
done

# dry CPUINFO-FLAGS ARGUMENT...: the QEMU command printed on a machine with these CPU flags.
dry() {
    local flags=$1
    shift
    printf 'processor\t: 0\nflags\t\t: fpu vme %s lahf_lm\nvmx flags\t: vnmi\nbugs\t\t:\n' "$flags" >"$SCENARIO_TEMP/cpuinfo"
    HOSPES_CPUINFO=$SCENARIO_TEMP/cpuinfo status "$FRONT" "${COMMON[@]}" --dry-run "$@"
    equal "status of --dry-run $*" "$STATUS" 0
    equal "lines printed by --dry-run $*" "$(wc -l <<<"$OUT")" 1
    has "--dry-run" "$OUT" "^qemu-system-x86_64 "
}
dry vmx;              has "Intel" "$OUT" "-accel kvm -cpu host "
dry svm;              has "AMD" "$OUT" "-accel kvm -cpu host "
dry "";               has "neither" "$OUT" "-accel tcg"; has "neither" "$OUT" "-cpu max,-smap "; has_not "neither" "$OUT" "kvm"
dry "xvmx svmlock";   has "other flags" "$OUT" "-accel tcg"; has_not "other flags" "$OUT" "kvm"
dry vmx --accel tcg;  has "--accel tcg" "$OUT" "-accel tcg"; has_not "--accel tcg" "$OUT" "kvm"
dry "" --accel kvm;   has "--accel kvm" "$OUT" "-accel kvm -cpu host "
dry vmx --icount;     has "--icount" "$OUT" "-accel tcg -icount shift=0"; has_not "--icount" "$OUT" "kvm"
dry "" --uefi;        has "--uefi" "$OUT" "-bios /usr/share/ovmf/OVMF.fd "; has "--uefi" "$OUT" "\.iso"
dry "" --smp 3 --memory 1234 --gdb
has "--smp" "$OUT" "-smp 3 "
has "--memory" "$OUT" "-m 1234M "
has "--gdb" "$OUT" "-s -S "
has "an ISO" "$OUT" "\.iso"
has_not "an ISO" "$OUT" "-kernel"
dry "" --direct --append "one two,three" --dom0-mem 300
has "--direct" "$OUT" "-kernel "
has "--append, commas doubled for multiboot" "$OUT" "one two,,three"
has "--dom0-mem" "$OUT" "dom0_mem=300M"
has_not "--direct" "$OUT" "\.iso"
: >"$SCENARIO_TEMP/a,b.img"
dry "" --disk "$SCENARIO_TEMP/a,b.img" --disk "ahci:$SCENARIO_TEMP/cpuinfo" --nic e1000
has "--disk" "$OUT" "a,,b.img,format=raw.* -device virtio-blk-pci"
has "--disk ahci:" "$OUT" "-device ide-hd"
has "--nic" "$OUT" "model=e1000"
