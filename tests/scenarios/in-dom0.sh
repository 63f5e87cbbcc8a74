# shellcheck shell=sh
# Functions for commands that scenarios run in dom0: in_dom0 (lib.sh) puts this in front of them. It is busybox's shell.

fail() { echo "FAILED: $*" >&2; dom list >&2; exit 1; }

# until_true SECONDS COMMAND...: waits until the command succeeds.
until_true() {
    tries=$(($1 * 5 * SLOW)); shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || return 1
        usleep 200000
    done
}

# write_cfg NAME LINE...: a configuration with these lines, and with the stock guest's kernel and ramdisk if they name none.
write_cfg() {
    file=/run/$1.cfg
    echo "name = \"$1\"" >"$file"
    shift
    for line in "$@"; do echo "$line" >>"$file"; done
    grep -q "^kernel" "$file" || echo 'kernel = "/boot/vmlinuz-guest"' >>"$file"
    grep -q "^ramdisk" "$file" || echo 'ramdisk = "/boot/guest-initrd.gz"' >>"$file"
}

# run_word COMMANDS: the word for the kernel's command line that makes the stock guest run them.
run_word() { printf 'run=%s' "$(printf '%s' "$1" | base64 | tr -d '\n')"; }

# domid NAME: by the store, which `dom` shares with every other tool.
domid() {
    for id in $(xenstore-list /local/domain); do
        [ "$(xenstore-read "/local/domain/$id/name" 2>/dev/null)" != "$1" ] || { echo "$id"; return; }
    done
    return 1
}

# console NAME: what the guest has printed so far, as xenconsoled has logged it.
console() { tr -d '\r' <"/var/log/xen/console/guest-$1.log"; }

printed() { console "$1" 2>/dev/null | grep -qE -- "$2"; }

# expect NAME PATTERN [SECONDS]: waits until the guest has printed it.
expect() {
    until_true "${3:-60}" printed "$1" "$2" || { console "$1" | tail -n 30 >&2; fail "guest $1 did not print '$2'"; }
}

# input NAME LINE: types it on the guest's console.
input() { echo "$2" >"$(xenstore-read "/local/domain/$(domid "$1")/console/tty")"; }

free_pages() { dom info --json | tr ',' '\n' | sed -n 's/.*"free_memory_pages": *\([0-9]*\).*/\1/p'; }

# Every page count of the hypervisor agrees with what justifies it. Real Xen has no such check.
audit() { [ "$HYPERVISOR" = xen ] || dom debug audit; }

# pages_of_others: pages that are free, or a domain's, or that a domain sees beyond its memory (its shared_info page and its
# grant table). All the rest is the hypervisor's own.
pages_of_others() {
    domains=$(dom list --json | awk '/"memory_pages"|"shared_pages"/ { sum += $2 } END { print sum }')
    echo $((domains + $(free_pages)))
}
