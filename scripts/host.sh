# shellcheck shell=bash
# What this machine must have: Debian packages and the Rust toolchain.

# "file that shows it is there : package"
HOST_NEEDS=(
    "qemu-system-x86_64:qemu-system-x86"
    "grub-mkrescue:grub-common"
    "/usr/lib/grub/i386-pc/multiboot2.mod:grub-pc-bin"
    "xorriso:xorriso"
    "mformat:mtools"
    "cpio:cpio"
    "gzip:gzip"
    "xz:xz-utils"
    "zstd:zstd"
    "gcc:gcc"
    "/usr/lib/x86_64-linux-gnu/libc.a:libc6-dev"
    "/usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring"
    "flock:util-linux"
)

host_packages() {
    local need what missing=() sudo=()
    for need in "${HOST_NEEDS[@]}"; do
        what=${need%%:*}
        case $what in
            /*) [ -e "$what" ] || missing+=("${need#*:}") ;;
            *) command -v "$what" >/dev/null || missing+=("${need#*:}") ;;
        esac
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ]; then
        if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
            sudo=(sudo)
        elif command -v sudo >/dev/null && [ -t 0 ] && [ -t 2 ]; then
            sudo=(sudo)
        else
            die "packages are missing. Please run: apt-get install -y --no-install-recommends ${missing[*]}"
        fi
    fi
    say "installing Debian packages: ${missing[*]}"
    step "${sudo[@]}" apt-get update || say "apt-get update failed; trying with the lists there are"
    step "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" ||
        die "apt-get could not install: ${missing[*]}"
}

# The toolchain that rust-toolchain.toml names, with the bare-metal target.
host_rust() {
    local wanted target=x86_64-unknown-none library
    [ -x "$HOME/.cargo/bin/cargo" ] && PATH=$PATH:$HOME/.cargo/bin
    command -v cargo >/dev/null || die "there is no cargo. Please install rustup (https://rustup.rs) with its stable toolchain"
    cd "$ROOT"
    wanted=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' rust-toolchain.toml)
    if ! rustc --version >/dev/null 2>&1; then
        say "installing Rust $wanted"
        step rustup toolchain install "$wanted" --profile minimal --component clippy,rustfmt --target "$target" ||
            host_rust_stable "$wanted"
    fi
    library=$(rustc --print sysroot)/lib/rustlib/$target/lib
    if ! compgen -G "$library/libcore-*.rlib" >/dev/null; then
        say "adding the Rust target $target"
        step rustup target add "$target" || die "cannot add it. Please run: rustup target add $target"
    fi
}

# Without the network: the machine's stable toolchain does as well if it is the same release.
host_rust_stable() {
    case $(RUSTUP_TOOLCHAIN=stable rustc --version 2>/dev/null) in
        "rustc $1 "*) export RUSTUP_TOOLCHAIN=stable ;;
        *) die "Rust $1 is not there and cannot be downloaded. Please run: rustup toolchain install $1" ;;
    esac
}
