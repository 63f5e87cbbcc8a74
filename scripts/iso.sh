# shellcheck shell=bash
# The GRUB ISO (multiboot2; it starts from a BIOS and from UEFI) and the arguments of hypervisor and kernel.

# Arguments of the hypervisor. Xen and Hospes share their names. There is no `noreboot` among them: after a crash the
# machine restarts, which QEMU (-no-reboot) makes its end, so nobody waits for a machine that is dead.
hypervisor_arguments() {
    local arguments="console=com1 com1=115200,8n1 dom0_mem=${OPT_DOM0_MEM}M,max:${OPT_DOM0_MEM}M loglvl=all guest_loglvl=all"
    # Flushing the FPU state eagerly is what Xen does on silicon that needs it; the emulator needs it, too.
    [ "$HYPERVISOR_KIND" != xen ] || arguments+=" spec-ctrl=eager-fpu"
    echo "$arguments${OPT_XEN_APPEND:+ $OPT_XEN_APPEND}"
}

kernel_arguments() {
    echo "console=hvc0 earlyprintk=xen${OPT_APPEND:+ $OPT_APPEND}"
}

# Sets ISO. The stock machine's is shown as dist/hospes.iso.
iso_select() {
    local name
    mkdir -p "$CACHE/iso"
    name=$(cat "$HYPERVISOR" "$KERNEL_IMAGE" "$INITRD" "$SCRIPTS/iso.sh" | key "$(hypervisor_arguments)" "$(kernel_arguments)")
    ISO=$CACHE/iso/$name.iso
    if [ ! -f "$ISO" ]; then
        say "making the ISO"
        iso_build "$ISO"
        forget_old "$CACHE/iso" 8
    fi
    touch "$ISO"
    [ "$HYPERVISOR_KIND" = xen ] || link_result "$ISO" hospes.iso
}

iso_build() {
    local tree
    tree=$(mktemp -d "$CACHE/tree.XXXXXX")
    mkdir -p "$tree/boot/grub"
    cp "$HYPERVISOR" "$tree/boot/hypervisor"
    cp "$KERNEL_IMAGE" "$tree/boot/vmlinuz"
    cp "$INITRD" "$tree/boot/initrd.gz"
    iso_grub_config >"$tree/boot/grub/grub.cfg"
    iso_efi "$tree" >"$1.log" 2>&1 && grub-mkrescue -d /usr/lib/grub/i386-pc -o "$1.new" --compress=no --fonts= --locales= --themes= \
        --install-modules="multiboot2 iso9660 biosdisk part_msdos normal serial terminal echo reboot" "$tree" \
        --efi-boot boot/efi.img -efi-boot-part --efi-boot-image >>"$1.log" 2>&1 ||
        { cat "$1.log" >&4; die "grub-mkrescue failed (see above)"; }
    rm -rf "$tree" "$1.log"
    mv "$1.new" "$1"
}

# iso_efi TREE: GRUB for UEFI, on a FAT image in the tree. (grub-mkrescue can put in the GRUBs of several platforms, but
# then it takes all that are installed, of Xen, too, and those have no multiboot2.)
iso_efi() {
    local image=$1/boot/efi.img efi=$1.efi
    printf '%s\n' 'search --no-floppy --file --set=root /boot/hypervisor' 'configfile ($root)/boot/grub/grub.cfg' >"$efi.cfg"
    grub-mkimage -O x86_64-efi -o "$efi" -c "$efi.cfg" -p /boot/grub \
        multiboot2 iso9660 part_msdos part_gpt normal configfile search search_fs_file serial terminal echo reboot &&
        mformat -C -i "$image" -f 2880 -L 16 :: &&
        mmd -i "$image" ::/EFI ::/EFI/BOOT &&
        mcopy -i "$image" "$efi" ::/EFI/BOOT/BOOTX64.EFI &&
        rm "$efi" "$efi.cfg"
}

# GRUB reads arguments as its own words: each is quoted.
iso_grub_config() {
    cat <<END
serial --unit=0 --speed=115200
terminal_input serial
terminal_output serial
set timeout=0
menuentry Hospes {
    multiboot2 /boot/hypervisor $(iso_quote "$(hypervisor_arguments)")
    module2 /boot/vmlinuz $(iso_quote "$(kernel_arguments)")
    module2 /boot/initrd.gz
    boot
}
END
}

iso_quote() {
    local word
    set -f
    for word in $1; do printf "'%s' " "${word//\'/\'\\\'\'}"; done
    set +f
}
