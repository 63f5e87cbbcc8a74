# shellcheck shell=bash
# A QEMU whose CPU has a working SMAP (9.1 or newer), beside the machine's own: for tests only, nothing is installed.

NEWER_QEMU_SUITES="bookworm-backports bookworm"

# Sets NEWER_QEMU: the machine's own if it is new enough, else that of Debian's backports, unpacked into the cache.
newer_qemu() {
    local have directory=$CACHE/qemu/backports
    have=$(qemu-system-x86_64 --version | sed -n 's/^QEMU emulator version \([0-9.]*\).*/\1/p')
    NEWER_QEMU=$(command -v qemu-system-x86_64)
    [ "$(printf '%s\n' 9.1 "$have" | sort -V | head -n 1)" != 9.1 ] || return 0
    NEWER_QEMU=$directory/usr/bin/qemu-system-x86_64
    [ ! -x "$NEWER_QEMU" ] || return 0
    debian_index "$NEWER_QEMU_SUITES"
    rm -rf "$directory" "$directory.new"
    debian_unpack "$NEWER_QEMU_SUITES" "$directory.new" qemu-system-{x86,common,data}/bookworm-backports \
        seabios/bookworm-backports ipxe-qemu
    # Its libraries are those of the machine's own QEMU, which Debian 12 has in the right versions.
    if ldd "$directory.new/usr/bin/qemu-system-x86_64" | grep 'not found' >&4; then
        die "QEMU of bookworm-backports misses libraries on this machine (see above); please install a QEMU of 9.1 or newer"
    fi
    mv "$directory.new" "$directory"
}
