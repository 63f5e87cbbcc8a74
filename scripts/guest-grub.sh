# shellcheck shell=bash
# GRUB as a PV kernel: it reads the guest's own menu from its first disk, so that the guest chooses its kernel.

# guest_grub FILE: makes it. Its small menu lies in a memory disk, where GRUB's full parser reads it. Debian's kernels are
# packed with XZ up to 6.1 and with ZSTD later: GRUB 2.06 unpacks only the former.
guest_grub() {
    local work
    work=$(mktemp -d "$CACHE/grub.XXXXXX")
    cat >"$work/grub.cfg" <<'END'
for disk in xen/xvda,msdos1 xen/xvda,gpt1 xen/xvda; do
    if [ -f ($disk)/boot/grub/grub.cfg ]; then
        set root=$disk
        set prefix=($disk)/boot/grub
        configfile ($disk)/boot/grub/grub.cfg
    fi
done
echo "There is no /boot/grub/grub.cfg on the first disk (xvda)."
END
    tar -C "$work" -cf "$work/grub.tar" grub.cfg
    step grub-mkimage -O x86_64-xen -o "$1" -m "$work/grub.tar" -p '(memdisk)' memdisk tar normal configfile echo test linux \
        gzio xzio lzopio part_msdos part_gpt ext2 search search_label reboot halt sleep ls cat ||
        die "grub-mkimage failed (see above)"
    rm -rf "$work"
}
