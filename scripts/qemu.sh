# shellcheck shell=bash
# The machine.

UEFI_FIRMWARE=/usr/share/ovmf/OVMF.fd

# Is hardware virtualization there, with the guest hypervisor's needs in mind? KVM is used only where the CPU's own
# vmx or svm can be passed on.
qemu_accel() {
    if [ -n "$OPT_ACCEL" ]; then
        echo "$OPT_ACCEL"
    elif [ -n "$OPT_ICOUNT" ] || ! grep -qE '^flags[[:space:]]*:.* (vmx|svm)( |$)' "${HOSPES_CPUINFO:-/proc/cpuinfo}"; then
        echo tcg
    elif [ -z "$OPT_DRY_RUN" ] && ! { [ -r /dev/kvm ] && [ -w /dev/kvm ]; }; then
        say "the CPU has hardware virtualization, but /dev/kvm cannot be used: emulating"
        echo tcg
    else
        echo kvm
    fi
}

# Sets QEMU, the command with all that does not depend on who talks to the console.
qemu_command() {
    # The machine's AHCI controller has six ports; the ISO is on the third.
    local disk number=0 ports=(ide.0 ide.1 ide.3 ide.4 ide.5)
    QEMU=(qemu-system-x86_64 -machine q35 -smp "$OPT_SMP" -m "${OPT_MEMORY}M" -display none -no-reboot -nodefaults)
    if [ "$(qemu_accel)" = kvm ]; then
        QEMU+=(-accel kvm -cpu host)
    elif [ -n "$OPT_ICOUNT" ]; then
        # Setting the timer of an x2APIC, which QEMU has since 9.0, ends it with "Bad icount read".
        QEMU+=(-accel tcg -icount "shift=0,sleep=off" -cpu max,-smap,-x2apic)
    else
        # The emulator's SMAP does not go with a PV kernel's way of running in ring 3.
        QEMU+=(-accel tcg,thread=multi -cpu max,-smap)
    fi
    # Code and variables in one image, which QEMU keeps in its memory: nothing that a machine stores there stays.
    [ -z "$OPT_UEFI" ] || QEMU+=(-bios "$UEFI_FIRMWARE")
    [ -z "$OPT_GDB" ] || QEMU+=(-s -S)
    if [ -n "$OPT_DIRECT" ]; then
        # A comma inside a module's arguments is written twice.
        QEMU+=(-kernel "$HYPERVISOR" -append "$(hypervisor_arguments)"
            -initrd "${KERNEL_IMAGE//,/,,} $(kernel_arguments | sed 's/,/,,/g'),${INITRD//,/,,}")
    else
        QEMU+=(-drive "file=${ISO//,/,,},format=raw,if=none,id=cd,media=cdrom,readonly=on" -device "ide-cd,drive=cd,bus=ide.2,bootindex=0")
    fi
    for disk in "${OPT_DISKS[@]}"; do
        QEMU+=(-drive "file=$(realpath "${disk#ahci:}" | sed 's/,/,,/g'),format=raw,if=none,id=disk$number")
        case $disk in
            ahci:*)
                [ ${#ports[@]} -gt 0 ] || die "the machine has room for five disks on AHCI"
                QEMU+=(-device "ide-hd,drive=disk$number,bus=${ports[0]}")
                ports=("${ports[@]:1}")
                ;;
            *) QEMU+=(-device "virtio-blk-pci,drive=disk$number") ;;
        esac
        number=$((number + 1))
    done
    case $OPT_NIC in
        virtio) QEMU+=(-nic user,model=virtio-net-pci) ;;
        e1000) QEMU+=(-nic user,model=e1000) ;;
    esac
    QEMU+=("${OPT_QEMU[@]}")
}

# --dry-run: the command, quoted for a shell.
qemu_command_line() {
    qemu_command
    local word
    for word in "${QEMU[@]}" -serial mon:stdio; do
        if [[ $word =~ ^[A-Za-z0-9_./:=,+@%-]+$ ]]; then
            printf '%s ' "$word"
        else
            printf "'%s' " "${word//\'/\'\\\'\'}"
        fi
    done
    echo
}

# A person at the console.
qemu_interactive() {
    local log=${OPT_SERIAL_LOG:-$DIST/serial.log}
    qemu_command
    QEMU+=(-chardev "stdio,id=console,mux=on,signal=off,logfile=${log//,/,,}" -serial chardev:console -mon chardev=console)
    say "starting QEMU (Ctrl-A X ends it); the console is also logged to $log"
    if [ -n "$OPT_TIMEOUT" ]; then
        timeout --foreground -k 5 "$OPT_TIMEOUT" "${QEMU[@]}"
    else
        "${QEMU[@]}"
    fi
}
