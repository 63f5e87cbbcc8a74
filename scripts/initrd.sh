# shellcheck shell=bash
# dom0's initramfs: busybox, the modules this kernel needs, Debian's xenstored and xenconsoled, `dom`, and a guest to start.

# Modules that dom0's init loads when it runs on a hypervisor; the rest is loaded for the devices that are there.
DOM0_XEN_MODULES=(xen-evtchn xen-gntdev xen-privcmd xenfs)
DOM0_MODULES=(virtio_pci virtio_console virtio_blk virtio_net ahci sd_mod e1000 ext4 crc32c_generic loop xen-blkback xen-netback bridge)
GUEST_MODULES=(xen-blkfront xen-netfront)

# What of the stock tools goes into dom0, below the root of the unpacked packages.
DOM0_PROGRAMS=(xenstored xenconsoled xenconsole)

# Sets INITRD.
initrd_select() {
    local name dom_hash
    if [ -n "$OPT_INITRD" ]; then
        INITRD=$(realpath "$OPT_INITRD")
        return
    fi
    dom_hash=$(sha256sum <"$DOM")
    name=$(cat "$SCRIPTS/initrd.sh" "$ROOT"/dom0/* | key "$KERNEL_IMAGE" "$KERNEL_VERSION" "$KERNEL_ROOT" "$dom_hash" \
        "$(stat -c %Y "$PROGRAMS" "$CACHE/kernels/bookworm")")
    mkdir -p "$CACHE/initrd"
    INITRD=$CACHE/initrd/$name.gz
    if [ ! -f "$INITRD" ]; then
        say "building dom0's initramfs for Linux ${KERNEL_VERSION:-of unknown release}"
        initrd_build "$INITRD"
        forget_old "$CACHE/initrd" 12
    fi
    touch "$INITRD"
    link_result "$INITRD" dom0-initrd.gz
}

initrd_build() {
    local tree guest program kernels=$CACHE/kernels/bookworm
    tree=$(mktemp -d "$CACHE/tree.XXXXXX")
    mkdir -p "$tree/dom0/boot" "$tree/dom0/etc/hospes" "$tree/dom0/lib64" "$tree/dom0/lib/x86_64-linux-gnu"

    guest=$tree/guest
    initrd_busybox "$guest"
    cp "$ROOT/dom0/guest-init" "$guest/init"
    # What its kernel runs when dom0 asks it to end; its init is a script, which nobody can signal.
    for program in poweroff reboot; do
        printf '#!/bin/sh\nsync\nexec /bin/%s -f\n' $program >"$guest/sbin/$program"
        chmod 755 "$guest/sbin/$program"
    done
    initrd_modules "$guest" "$kernels" "$(kernel_version "$kernels"/boot/vmlinuz-*)" "${GUEST_MODULES[@]}"
    initrd_pack "$guest" -6 >"$tree/guest.gz"

    initrd_busybox "$tree/dom0"
    cp "$ROOT/dom0/init" "$tree/dom0/init"
    cp "$ROOT/dom0/profile" "$tree/dom0/etc/profile"
    cp "$ROOT/dom0/demo.cfg" "$tree/dom0/etc/hospes/demo.cfg"
    cp "$kernels"/boot/vmlinuz-* "$tree/dom0/boot/vmlinuz-guest"
    cp "$tree/guest.gz" "$tree/dom0/boot/guest-initrd.gz"
    cp "$DOM" "$tree/dom0/usr/bin/dom"
    for program in "${DOM0_PROGRAMS[@]}"; do
        cp "$PROGRAMS/usr/lib/xen-4.17/bin/$program" "$tree/dom0/usr/sbin/"
    done
    # One program under many names.
    cp "$PROGRAMS/usr/bin/xenstore" "$tree/dom0/usr/bin/"
    for program in exists list ls read rm watch write; do ln -s xenstore "$tree/dom0/usr/bin/xenstore-$program"; done
    initrd_libraries "$tree/dom0"
    if [ -n "$KERNEL_ROOT" ]; then
        printf '%s\n' "${DOM0_XEN_MODULES[@]}" >"$tree/dom0/etc/hospes/modules"
        initrd_modules "$tree/dom0" "$KERNEL_ROOT" "$KERNEL_VERSION" "${DOM0_XEN_MODULES[@]}" "${DOM0_MODULES[@]}"
    fi
    initrd_pack "$tree/dom0" -1 | replace "$1"
    rm -rf "$tree"
}

# initrd_busybox ROOT: the directories of a small system, with busybox under all its names.
initrd_busybox() {
    local busybox=$PROGRAMS/bin/busybox name
    mkdir -p "$1"/{bin,sbin,usr/bin,usr/sbin,dev,proc,sys,run,tmp,root,etc,var/lib,var/log,lib/modules}
    cp "$busybox" "$1/bin/busybox"
    for name in $("$busybox" --list); do
        case $name in busybox | init) ;; *) ln -s /bin/busybox "$1/bin/$name" ;; esac
    done
    # Where the kernel looks for it, when it wants a file system's or a protocol's module.
    ln -s /bin/busybox "$1/sbin/modprobe"
    printf 'root:x:0:0:root:/root:/bin/sh\n' >"$1/etc/passwd"
    printf 'root:x:0:\n' >"$1/etc/group"
}

# initrd_libraries ROOT: the shared libraries of the programs in ROOT, found through their NEEDED entries.
initrd_libraries() {
    local missing name file changed=1
    while [ -n "$changed" ]; do
        changed=
        missing=$(find "$1/usr/sbin" "$1/usr/bin" "$1/lib/x86_64-linux-gnu" -type f -exec objdump -p {} + 2>/dev/null |
            sed -n 's/^ *NEEDED *//p' | sort -u)
        for name in $missing; do
            [ ! -e "$1/lib/x86_64-linux-gnu/$name" ] || continue
            for file in "$PROGRAMS"/usr/lib/x86_64-linux-gnu/"$name" "$PROGRAMS"/lib/x86_64-linux-gnu/"$name"; do
                [ -e "$file" ] || continue
                cp -L "$file" "$1/lib/x86_64-linux-gnu/$name"
                changed=1
                break
            done
            [ -e "$1/lib/x86_64-linux-gnu/$name" ] || die "dom0's programs need $name, which no package in the list holds"
        done
    done
    ln -sf ../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 "$1/lib64/ld-linux-x86-64.so.2"
}

# initrd_modules ROOT KERNEL_ROOT VERSION MODULE...: copies the modules and all they need, and writes what modprobe
# reads (modules.dep, modules.alias). A module that this kernel has built in, or has not, is left out.
initrd_modules() {
    local root=$1 from=$2/lib/modules/$3 to=$1/lib/modules/$3 name file
    shift 3
    [ -d "$from/kernel" ] || from=${from/lib\/modules/usr/lib/modules}
    mkdir -p "$to"
    : >"$to/modules.dep"
    : >"$to/modules.alias"
    : >"$to/modules.symbols"
    # One walk over thousands of files, not one a module.
    local -A MODULE_FILES=() MODULE_NEEDS=()
    while read -r file; do
        name=${file##*/}
        name=${name%%.ko*}
        MODULE_FILES[${name//-/_}]=$file
    done < <(cd "$from" && find kernel -name '*.ko*')
    for name in "$@"; do initrd_module "$from" "$to" "$name"; done
}

initrd_module() {
    local from=$1 to=$2 name file plain dependency needed=()
    # The kernel treats - and _ in module names alike.
    name=${3//-/_}
    file=${MODULE_FILES[$name]-}
    [ -n "$file" ] || return 0
    plain=kernel/$name.ko
    [ ! -f "$to/$plain" ] || return 0
    mkdir -p "$to/kernel"
    case $file in
        *.xz) xz -dc "$from/$file" ;;
        *.zst) zstd -dcq "$from/$file" ;;
        *) cat "$from/$file" ;;
    esac >"$to/$plain"
    for dependency in $(module_info "$to/$plain" depends | tr ',' ' '); do
        initrd_module "$from" "$to" "$dependency"
        dependency=${dependency//-/_}
        needed+=("kernel/$dependency.ko" ${MODULE_NEEDS[$dependency]-})
    done
    # modprobe loads them from the last to the first, and looks no further: what they need is listed, too.
    MODULE_NEEDS[$name]=${needed[*]}
    echo "$plain: ${needed[*]}" >>"$to/modules.dep"
    module_info "$to/$plain" alias | sed "s|.*|alias & $name|" >>"$to/modules.alias"
}

# module_info FILE FIELD: from the .modinfo section, whose entries are NUL-terminated "field=value".
module_info() { tr '\0' '\n' <"$1" | LC_ALL=C sed -n "s/^$2=//p"; }

# initrd_pack ROOT LEVEL: the tree as a compressed cpio archive, the same bytes for the same tree.
initrd_pack() {
    find "$1" -exec touch -hd @0 {} +
    (cd "$1" && find . -print0 | LC_ALL=C sort -z | cpio -0 -o -H newc -R 0:0 --reproducible --quiet) | gzip -n "$2"
}
