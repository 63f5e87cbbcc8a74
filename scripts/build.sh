# shellcheck shell=bash
# What is built from this workspace: the hypervisor and `dom`.

# Sets HYPERVISOR (the image to boot) and HYPERVISOR_KIND (hospes or xen).
hypervisor_select() {
    HYPERVISOR_KIND=hospes
    case $OPT_HYPERVISOR in
        xen) HYPERVISOR=$DIST/xen HYPERVISOR_KIND=xen ;;
        "") build_hypervisor ;;
        *) HYPERVISOR=$(realpath "$OPT_HYPERVISOR") ;;
    esac
}

# build_cargo ARGUMENT...: cargo, quiet unless it has something to say.
build_cargo() { (cd "$ROOT" && CARGO_TARGET_DIR=$TARGET_DIR step cargo build -q "$@"); }

build_hypervisor() {
    say "building Hospes ($OPT_PROFILE)"
    build_cargo --profile "$OPT_PROFILE" --target x86_64-unknown-none -p hypervisor --bin hospes ||
        die "the hypervisor does not build (see above)"
    HYPERVISOR=$TARGET_DIR/x86_64-unknown-none/$OPT_PROFILE/hospes
    step "$SCRIPTS/embed-symbols" "$HYPERVISOR" || die "the hypervisor got no symbol table (see above)"
    link_result "$HYPERVISOR" hospes
}

# `dom` is static, because dom0's initramfs may hold another C library than this machine. Sets DOM.
build_tools() {
    local directory=$TARGET_DIR/x86_64-unknown-linux-gnu/release
    say "building dom"
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static" \
        build_cargo --release --target x86_64-unknown-linux-gnu -p guest-tools || die "dom does not build (see above)"
    DOM=$directory/dom
    [ -x "$DOM" ] || DOM=$directory/guest-tools
}
