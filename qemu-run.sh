#!/bin/bash
# The front door: prepares everything Hospes needs on a Debian machine, then boots it in QEMU.
# `./qemu-run.sh --help` says what it can do. Each file below scripts/ has one subject; this one only orders them.
set -euo pipefail

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
SCRIPTS=$ROOT/scripts

# shellcheck source=scripts/common.sh
source "$SCRIPTS/common.sh"
# shellcheck source=scripts/options.sh
source "$SCRIPTS/options.sh"
# shellcheck source=scripts/host.sh
source "$SCRIPTS/host.sh"
# shellcheck source=scripts/debian.sh
source "$SCRIPTS/debian.sh"
# shellcheck source=scripts/kernels.sh
source "$SCRIPTS/kernels.sh"
# shellcheck source=scripts/build.sh
source "$SCRIPTS/build.sh"
# shellcheck source=scripts/initrd.sh
source "$SCRIPTS/initrd.sh"
# shellcheck source=scripts/iso.sh
source "$SCRIPTS/iso.sh"
# shellcheck source=scripts/guest-grub.sh
source "$SCRIPTS/guest-grub.sh"
# shellcheck source=scripts/guest-image.sh
source "$SCRIPTS/guest-image.sh"
# shellcheck source=scripts/qemu.sh
source "$SCRIPTS/qemu.sh"
# shellcheck source=scripts/newer-qemu.sh
source "$SCRIPTS/newer-qemu.sh"
# shellcheck source=scripts/exec.sh
source "$SCRIPTS/exec.sh"
# shellcheck source=scripts/checks.sh
source "$SCRIPTS/checks.sh"

# Everything that has to exist before a machine can start. One run at a time prepares; the others wait for it.
prepare() {
    local lock
    exec {lock}>"$CACHE/lock"
    flock "$lock"
    host_packages
    [ -z "$OPT_UEFI" ] || host_install "$UEFI_FIRMWARE:ovmf"
    host_rust
    kernel_select
    hypervisor_select
    build_tools
    initrd_select
    [ -n "$OPT_DIRECT" ] || iso_select
    exec {lock}>&-
}

main() {
    local lock
    options_parse "$@"
    log_open
    case $OPT_COMMAND in
        run)
            prepare
            if [ -n "$OPT_DRY_RUN" ]; then
                qemu_command_line
            elif [ -n "$OPT_EXEC_SET" ]; then
                exec_in_dom0
            else
                qemu_interactive
            fi
            ;;
        build) prepare ;;
        guest-image)
            host_install "${GUEST_IMAGE_NEEDS[@]}"
            # One builds it, the others wait and take it from the cache.
            exec {lock}>"$CACHE/guest-image.lock"
            flock "$lock"
            guest_image
            ;;
        test) prepare; checks_run "$OPT_LONG" ;;
        bench) prepare; checks_bench ;;
    esac
}

main "$@"
