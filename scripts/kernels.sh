# shellcheck shell=bash
# Debian's kernels, real Xen and dom0's few stock programs, unpacked once below the cache.

# Sets KERNEL_IMAGE and KERNEL_ROOT (where its lib/modules is; empty if nowhere) and KERNEL_VERSION.
kernel_select() {
    case $OPT_KERNEL in
        bookworm | trixie | newest)
            kernel_debian "$OPT_KERNEL"
            KERNEL_ROOT=$CACHE/kernels/$OPT_KERNEL
            KERNEL_IMAGE=$(echo "$KERNEL_ROOT"/boot/vmlinuz-*)
            KERNEL_VERSION=$(kernel_version "$KERNEL_IMAGE")
            ;;
        *)
            KERNEL_IMAGE=$(realpath "$OPT_KERNEL")
            KERNEL_VERSION=$(kernel_version "$KERNEL_IMAGE")
            KERNEL_ROOT=$(kernel_modules_root)
            ;;
    esac
    # The kernel and the programs that guests of dom0 get are always bookworm's.
    kernel_debian bookworm
    debian_programs
    link_result "$KERNEL_IMAGE" vmlinuz
}

# kernel_version VMLINUZ: the release a bzImage says it is ("6.1.0-56-amd64"); nothing if it is no bzImage.
kernel_version() {
    local at
    [ "$(dd if="$1" bs=1 skip=514 count=4 status=none | tr -d '\0')" = HdrS ] || return 0
    # The boot protocol's kernel_version: a 16-bit offset, less 0x200, of a string "RELEASE (who@where) ...".
    at=$(od -An -tu2 -j 526 -N 2 "$1")
    dd if="$1" bs=1 skip=$((at + 512)) count=128 status=none | tr '\0' '\n' | head -n 1 | cut -d ' ' -f 1
}

# Where the modules of a kernel given as a file may be: beside it as in a package, in our cache, on this machine.
kernel_modules_root() {
    local root
    [ -n "$KERNEL_VERSION" ] || return 0
    for root in "$(dirname "$KERNEL_IMAGE")/.." "$CACHE"/kernels/* /; do
        if [ -d "$root/lib/modules/$KERNEL_VERSION/kernel" ] || [ -d "$root/usr/lib/modules/$KERNEL_VERSION/kernel" ]; then
            realpath "$root"
            return
        fi
    done
    say "no modules of $KERNEL_VERSION found: dom0 gets none"
}

# kernel_debian NAME: unpacks that kernel of Debian's, if that was not done yet.
kernel_debian() {
    local name=$1 suites root=$CACHE/kernels/$1 package image
    case $name in
        bookworm) suites="bookworm bookworm-security" ;;
        trixie) suites="trixie trixie-security" ;;
        newest) suites="trixie-backports" ;;
    esac
    [ ! -d "$root" ] || return 0
    debian_index "$suites"
    package=$(debian_field "$suites" linux-image-amd64 Depends | tr -d ' ' | tr ',' '\n' | sed 's/(.*//' |
        grep -m 1 -E '^linux-image-[0-9]') || die "Debian's index of $suites names no kernel"
    rm -rf "$root.new"
    # shellcheck disable=SC2046 # several package names
    debian_unpack "$suites" "$root.new" $(kernel_packages "$suites" "$package")
    # Newer packages keep the kernel beside its modules.
    for image in "$root.new"/usr/lib/modules/*/vmlinuz; do
        [ ! -f "$image" ] || { mkdir -p "$root.new/boot"; mv "$image" "$root.new/boot/vmlinuz-$(kernel_version "$image")"; }
    done
    [ -f "$(echo "$root.new"/boot/vmlinuz-*)" ] || die "the package $package holds no kernel"
    mv "$root.new" "$root"
}

# kernel_packages SUITES PACKAGE: the package and what it depends on that holds parts of the same kernel.
kernel_packages() {
    local dependency
    echo "$2"
    for dependency in $(debian_field "$1" "$2" Depends | tr -d ' ' | tr ',' '\n' | sed 's/[(|].*//'); do
        case $dependency in linux-modules-[0-9]* | linux-binary-[0-9]*) kernel_packages "$1" "$dependency" ;; esac
    done
}

# Real Xen and the programs of the stock tools that dom0 runs, with their libraries, into PROGRAMS.
debian_programs() {
    local suites="bookworm bookworm-security"
    PROGRAMS=$CACHE/programs
    if [ ! -d "$PROGRAMS" ]; then
        debian_index "$suites"
        rm -rf "$PROGRAMS.new"
        debian_unpack "$suites" "$PROGRAMS.new" xen-hypervisor-4.17-amd64 xen-utils-4.17 xenstore-utils busybox-static \
            libc6 libxenmisc4.17 libxencall1 libxenevtchn1 libxenforeignmemory1 libxengnttab1 libxenstore4 \
            libxentoollog1 libxentoolcore1 libxendevicemodel1
        gunzip -c "$PROGRAMS.new/boot/xen-4.17-amd64.gz" >"$PROGRAMS.new/boot/xen-4.17-amd64"
        mv "$PROGRAMS.new" "$PROGRAMS"
    fi
    link_result "$PROGRAMS/boot/xen-4.17-amd64" xen
}
