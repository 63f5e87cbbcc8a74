# shellcheck shell=bash
# `guest-image`: a Debian root file system for a domU, on a disk image of its own.
#
# The disk has a DOS partition table: ext4 as xvda1, swap as xvda2. Everything is made with plain files and offsets: no
# loop device, no mount. The system is a bookworm with systemd, sshd, its own kernel with all modules, and a
# configuration for GRUB's PV build, so that the guest can choose its kernel. It is kept in the cache, because making it
# takes minutes; whoever asks for one gets a copy, since guests write to it.

GUEST_PACKAGES=(systemd-sysv systemd-resolved libnss-resolve dbus udev kmod procps iproute2 iputils-ping openssh-server
    linux-image-amd64 initramfs-tools zstd less)

# "file that shows it is there : package", as HOST_NEEDS.
GUEST_IMAGE_NEEDS=(
    "mmdebstrap:mmdebstrap"
    "mke2fs:e2fsprogs"
    "sfdisk:fdisk"
    "ssh-keygen:openssh-client"
    "fakeroot:fakeroot"
    "grub-mkimage:grub-common"
    "/usr/lib/grub/x86_64-xen/kernel.img:grub-xen-bin"
    "/usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring"
)

# Sectors of 512 bytes: where the root file system begins (as everybody has it), and the swap partition's size.
GUEST_ROOT_SECTOR=2048
GUEST_SWAP_SECTORS=$((256 * 2048))

# Makes OPT_OUTPUT and, beside it, what dom0 needs to start it: .key (for ssh), .vmlinuz, .initrd, .grub.
guest_image() {
    local made part
    mkdir -p "$CACHE/guest-images"
    [ ! -e "$OPT_OUTPUT" ] || die "$OPT_OUTPUT is there already, and a guest may have written to it: remove it, or choose another --output"
    [ -d "$(dirname "$OPT_OUTPUT")" ] || die "there is no directory $(dirname "$OPT_OUTPUT")"
    made=$CACHE/guest-images/$(guest_image_key)
    if [ ! -d "$made" ]; then
        guest_image_build "$made"
        forget_old "$CACHE/guest-images" 4
    fi
    touch "$made"
    guest_grub "$OPT_OUTPUT.grub"
    for part in key vmlinuz initrd; do cp --remove-destination "$made/$part" "$OPT_OUTPUT.$part"; done
    cp --sparse=always --reflink=auto "$made/disk" "$OPT_OUTPUT.new" || die "cannot write $OPT_OUTPUT"
    mv "$OPT_OUTPUT.new" "$OPT_OUTPUT"
    say "the guest's disk is $OPT_OUTPUT; ssh takes the key $OPT_OUTPUT.key"
}

guest_image_key() {
    { cat "$SCRIPTS/guest-image.sh"; [ -z "$OPT_SETUP" ] || cat "$OPT_SETUP"; } | key "$OPT_SIZE" "${OPT_PACKAGES[@]}"
}

# guest_image_build DIRECTORY: makes the image and what belongs to it there.
guest_image_build() {
    local work packages as_root=()
    [ "$(id -u)" = 0 ] || as_root=(fakeroot --)
    work=$(mktemp -d "$CACHE/guest.XXXXXX")
    # shellcheck disable=SC2064 # the value of now is meant
    trap "rm -rf '$work'" EXIT
    mkdir "$work/made"
    step ssh-keygen -q -t ed25519 -N '' -C 'guest image of Hospes' -f "$work/made/key" || die "ssh-keygen failed (see above)"
    guest_image_customize "$work"
    packages=$(printf '%s,' "${GUEST_PACKAGES[@]}" "${OPT_PACKAGES[@]}")
    say "building a Debian root file system (some minutes)"
    step mmdebstrap --variant=minbase --format=tar --components=main --include="${packages%,}" \
        --aptopt='APT::Install-Recommends "false"' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/examples*' \
        --essential-hook="tar-in $work/before.tar /" --customize-hook="tar-in $work/after.tar /" \
        --customize-hook="chroot \"\$1\" sh -e /root/setup" --customize-hook="rm \"\$1/root/setup\"" \
        --customize-hook="download /vmlinuz $work/made/vmlinuz" --customize-hook="download /initrd.img $work/made/initrd" \
        bookworm "$work/root.tar" \
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(debian_mirror debian) bookworm main" \
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(debian_mirror debian-security) bookworm-security main" ||
        die "mmdebstrap failed (see above)"
    say "laying out the disk"
    # Owners and device nodes live in fakeroot's memory only, so unpacking and reading are one command.
    # shellcheck disable=SC2016 # the inner shell expands these
    step "${as_root[@]}" bash -ec '
        mkdir "$1/root"
        tar -C "$1/root" --numeric-owner -xpf "$1/root.tar"
        truncate -s "$2" "$1/made/disk"
        mke2fs -q -t ext4 -L guest -d "$1/root" -E "offset=$(($3 * 512)),lazy_itable_init=1,lazy_journal_init=1" \
            "$1/made/disk" "$4k"' bash "$work" "${OPT_SIZE}M" "$GUEST_ROOT_SECTOR" "$(guest_root_kib)" ||
        die "the root file system does not fit into --size $OPT_SIZE, or cannot be made (see above)"
    guest_image_partitions "$work/made/disk" "$work/swap"
    mv "$work/made" "$1"
    rm -rf "$work"
    trap - EXIT
}

# KiB of the root partition.
guest_root_kib() { echo $(((OPT_SIZE * 2048 - GUEST_ROOT_SECTOR - GUEST_SWAP_SECTORS) / 2)); }

# guest_image_partitions DISK TEMPORARY: the table, and a swap area in its second partition.
guest_image_partitions() {
    local root_sectors=$(($(guest_root_kib) * 2))
    printf 'label: dos\nstart=%s, size=%s, type=83, bootable\nstart=%s, size=%s, type=82\n' \
        "$GUEST_ROOT_SECTOR" "$root_sectors" $((GUEST_ROOT_SECTOR + root_sectors)) "$GUEST_SWAP_SECTORS" >"$2.table"
    sfdisk -q --no-tell-kernel "$1" <"$2.table" >&4 2>&4 || die "sfdisk failed (see above)"
    truncate -s $((GUEST_SWAP_SECTORS * 512)) "$2"
    step mkswap -q -L swap "$2" || die "mkswap failed (see above)"
    # Only the header holds anything.
    dd if="$2" of="$1" bs=512 count=8 seek=$((GUEST_ROOT_SECTOR + root_sectors)) conv=notrunc status=none
}

# guest_image_customize WORK: what the new system finds in its files, as archives: before.tar before its packages are
# set up, after.tar when they are.
guest_image_customize() {
    local before=$1/before after=$1/after
    mkdir -p "$before/etc/initramfs-tools/conf.d" "$after"/{boot/grub,etc/systemd/{network,system.conf.d},etc/ssh/sshd_config.d,root/.ssh}
    # The few drivers a domU's root needs, instead of every disk controller's.
    printf 'MODULES=list\nRESUME=none\n' >"$before/etc/initramfs-tools/conf.d/guest"
    printf 'xen-blkfront\next4\ncrc32c_generic\n' >"$before/etc/initramfs-tools/modules"
    printf 'do_symlinks = yes\nimage_dest = /\n' >"$before/etc/kernel-img.conf"

    # On a slow machine (an emulator, or beside a hundred others) udev may need longer than systemd's 90 s to come to the
    # swap partition, and services longer than that to start: the guest would come up without them, and say little.
    printf '%s\n' '/dev/xvda1 / ext4 errors=remount-ro 0 1' '/dev/xvda2 none swap sw,x-systemd.device-timeout=infinity 0 0' \
        >"$after/etc/fstab"
    printf '[Manager]\nDefaultTimeoutStartSec=15min\n' >"$after/etc/systemd/system.conf.d/guest.conf"
    echo guest >"$after/etc/hostname"
    printf '127.0.0.1 localhost\n127.0.1.1 guest\n::1 localhost\n' >"$after/etc/hosts"
    # An address from the kernel's command line (ip=, by systemd-network-generator) comes first; otherwise DHCP.
    printf '[Match]\nType=ether\n\n[Network]\nDHCP=yes\n\n[DHCPv4]\nClientIdentifier=mac\n' \
        >"$after/etc/systemd/network/99-dhcp.network"
    printf 'PermitRootLogin prohibit-password\nUseDNS no\n' >"$after/etc/ssh/sshd_config.d/guest.conf"
    cp "$1/made/key.pub" "$after/root/.ssh/authorized_keys"
    chmod 700 "$after/root/.ssh"
    # Debian keeps these two links at the newest kernel.
    cat >"$after/boot/grub/grub.cfg" <<'END'
set timeout=0
menuentry Debian {
    linux /vmlinuz root=/dev/xvda1 ro console=hvc0
    initrd /initrd.img
}
END
    {
        # The console is its owner's: root logs in there without a password. sshd takes the key alone.
        echo 'passwd -d root'
        echo 'systemctl enable systemd-networkd systemd-network-generator systemd-resolved ssh'
        echo 'systemctl mask systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer'
        [ -z "$OPT_SETUP" ] || cat "$OPT_SETUP"
    } >"$after/root/setup"
    tar -C "$before" --owner=0 --group=0 -cf "$1/before.tar" .
    tar -C "$after" --owner=0 --group=0 -cf "$1/after.tar" .
}
