# shellcheck shell=bash
# Files out of Debian packages of any release, whatever release this machine runs: a private apt root in the cache,
# with the machine's own mirror and proxy, and with signatures checked as always. Nothing is installed.

# debian_mirror NAME: the machine's mirror of the archive NAME (debian, debian-security). A mirror that apt's sources name
# for the other archive is taken to carry this one beside it.
debian_mirror() {
    local other=debian
    [ "$1" != debian ] || other=debian-security
    debian_source "$1" || debian_source "$other" | sed -E "s,/$other/?\$,/$1," | grep . ||
        die "apt's sources name no mirror of the Debian archive: add one to /etc/apt/sources.list"
}

# debian_source NAME: the first URL of the archive NAME in apt's sources; fails if there is none.
debian_source() {
    local file
    for file in /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -f "$file" ] || continue
        # Both styles: "URIs: URL" and "deb [options] URL suite component". Only URLs that end in the archive's name.
        sed -n -E 's/^(URIs:|deb([[:space:]]+\[[^]]*\])?)[[:space:]]+//p' "$file"
    done | tr -s ' \t' '\n\n' | grep -E "^[a-z+]+:.*/$1/?\$" | head -n 1 | grep .
}

# debian_apt SUITES TOOL ARGUMENT...: runs an apt tool on the private root of these suites ("a b").
debian_apt() {
    local suites=$1 tool=$2 root
    shift 2
    root=$CACHE/apt/${suites// /+}
    "$tool" -o Dir::State="$root/state" -o Dir::State::status="$root/status" -o Dir::Cache="$root/cache" \
        -o Dir::Etc::sourcelist="$root/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        -o Acquire::Retries=3 -o APT::Sandbox::User="$(id -un)" \
        -o APT::Architecture=amd64 -o APT::Architectures=amd64 "$@"
}

# debian_index SUITES [again]: downloads the package lists once.
debian_index() {
    local suites=$1 suite archive root=$CACHE/apt/${1// /+}
    [ ! -f "$root/complete" ] || [ "${2-}" = again ] || return 0
    say "downloading the package lists of $suites"
    mkdir -p "$root/state/lists/partial" "$root/cache/archives/partial"
    : >"$root/status"
    for suite in $suites; do
        case $suite in *-security) archive=debian-security ;; *) archive=debian ;; esac
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(debian_mirror $archive) $suite main"
    done >"$root/sources.list"
    step debian_apt "$suites" apt-get update -q || die "cannot download the package lists of $suites (see above)"
    : >"$root/complete"
}

# debian_field SUITES PACKAGE FIELD: that field of the newest version, as one line.
debian_field() {
    debian_apt "$1" apt-cache show --no-all-versions "$2" 2>/dev/null | sed -n "s/^$3: //p" | head -n 1
}

# debian_unpack SUITES DIRECTORY PACKAGE...: unpacks the newest versions below DIRECTORY.
debian_unpack() {
    local suites=$1 directory=$2 downloads package
    shift 2
    downloads=$directory.debs
    mkdir -p "$downloads" "$directory"
    say "downloading from $suites: $*"
    if ! (cd "$downloads" && step debian_apt "$suites" apt-get download -q "$@"); then
        # A mirror forgets old versions: the lists may be too old.
        debian_index "$suites" again
        (cd "$downloads" && step debian_apt "$suites" apt-get download -q "$@") || die "cannot download these packages: $*"
    fi
    for package in "$downloads"/*.deb; do
        dpkg-deb -x "$package" "$directory" || die "cannot unpack ${package##*/}"
    done
    rm -rf "$downloads"
}
