# shellcheck shell=bash
# What this machine must have: Debian packages and the Rust toolchain.

# "file that shows it is there : package"
HOST_NEEDS=(
    "qemu-system-x86_64:qemu-system-x86"
    "grub-mkrescue:grub-common"
    "/usr/lib/grub/i386-pc/multiboot2.mod:grub-pc-bin"
    "/usr/lib/grub/x86_64-efi/multiboot2.mod:grub-efi-amd64-bin"
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

host_packages() { host_install "${HOST_NEEDS[@]}"; }

# host_install NEED...: installs the packages of what is not there.
host_install() {
    local need what missing=() sudo=()
    for need in "$@"; do
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
            die "packages are missing. Please run as root: apt-get install -y --no-install-recommends ${missing[*]}"
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
        step rustup target add "$target" || host_rust_core "$target" "$library"
    fi
}

# host_rust_stable WANTED: without the network, the machine's stable toolchain serves if it is not older.
host_rust_stable() {
    local have
    have=$(RUSTUP_TOOLCHAIN=stable rustc --version 2>/dev/null | cut -d ' ' -f 2)
    [ -n "$have" ] && [ "$(printf '%s\n' "$1" "$have" | sort -V | head -n 1)" = "$1" ] ||
        die "Rust $1 is not there and cannot be downloaded. Please run, with a network: rustup toolchain install $1"
    say "Rust $1 cannot be downloaded: using the stable toolchain, $have"
    export RUSTUP_TOOLCHAIN=stable
}

# host_rust_core TARGET LIBRARY: where rustup cannot add the target, its three libraries are built once from the source
# of the same release, which Debian packages, and put where the toolchain looks for them.
host_rust_core() {
    local target=$1 library=$2 release version source sources work=$CACHE/rust-core file
    release=$(rustc --version | cut -d ' ' -f 2)
    say "rustup cannot: building the libraries of $target from Debian's rust-src $release"
    debian_index trixie-backports
    version=$(debian_apt trixie-backports apt-cache madison rust-src | cut -d '|' -f 2 | tr -d ' ' |
        grep -m 1 -E "^${release//./\\.}\\+") ||
        die "Debian has no source of Rust $release. Please run, with a network: rustup target add $target"
    [ -d "$work/src" ] || { debian_unpack trixie-backports "$work/src.new" "rust-src=$version"; mv "$work/src.new" "$work/src"; }
    source=$work/src/usr/src/rustc-$release
    sources=$(rustc --print sysroot)/lib/rustlib/src
    mkdir -p "$work/probe/src" "$library"
    # Any crate will do: what counts is what cargo builds below it.
    printf '[package]\nname = "probe"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n' >"$work/probe/Cargo.toml"
    echo '#![no_std]' >"$work/probe/src/lib.rs"
    [ -e "$sources/rust" ] || { mkdir -p "$sources"; ln -sfn "$source" "$sources/rust"; }
    (cd "$work/probe" && RUSTC_BOOTSTRAP=1 step cargo build -q --release --target "$target" --target-dir "$work/target" \
        -Zbuild-std=core,alloc -Zbuild-std-features=compiler-builtins-mem) ||
        die "cannot build the libraries of $target (see above). Please run, with a network: rustup target add $target"
    for file in core alloc compiler_builtins; do
        cp "$work/target/$target/release/deps/lib$file"-*.rlib "$library/"
    done
    [ ! -L "$sources/rust" ] || rm "$sources/rust"
    rm -rf "$work"
}
