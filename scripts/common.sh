# shellcheck shell=bash
# What every part uses: places, messages, and running a set-up step where its output belongs.

CACHE=${HOSPES_CACHE:-$ROOT/.cache}
DIST=$ROOT/dist
TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}
LOG_FILE=
mkdir -p "$CACHE" "$DIST"

# Set-up messages go to file descriptor 4. That is stderr, except with --exec on something that is not a terminal:
# there stderr belongs to the command alone, and the messages go to dist/setup.log.
log_open() {
    if [ -n "$OPT_EXEC_SET" ] && [ ! -t 2 ]; then
        LOG_FILE=$DIST/setup.log
        exec 4>>"$LOG_FILE"
    else
        exec 4>&2
    fi
}

say() { printf '==> %s\n' "$*" >&4; }

# die MESSAGE...: one readable line that says what is wrong and what to do, then exit 1 (or DIE_STATUS).
die() {
    printf 'qemu-run.sh: %s\n' "$*" >&2
    [ -z "$LOG_FILE" ] || printf 'qemu-run.sh: what was done until then is in %s\n' "$LOG_FILE" >&2
    exit "${DIE_STATUS:-1}"
}

# step COMMAND...: runs a set-up step with both outputs where set-up messages go, and without our stdin.
step() { "$@" </dev/null >&4 2>&4; }

# key WORD...: a short name for everything on stdin plus the words, for cached results.
key() { { printf '%s\n' "$@"; cat; } | sha256sum | cut -c1-16; }

# replace FILE: puts stdin at FILE in one go, so that nobody ever sees half of it.
replace() {
    local temporary
    temporary=$(mktemp "$1.XXXXXX")
    cat >"$temporary"
    chmod 644 "$temporary"
    mv -f "$temporary" "$1"
}

# link_result FILE NAME: shows a cached result under its fixed name in dist/ (a hard link where possible).
link_result() {
    local name=$DIST/$2
    [ "$1" -ef "$name" ] || { ln -f "$1" "$name.new" 2>/dev/null || cp "$1" "$name.new"; mv -f "$name.new" "$name"; }
}

# forget_old DIRECTORY COUNT: keeps the COUNT newest entries of a cache directory.
forget_old() {
    local entry
    # shellcheck disable=SC2012 # names in these directories are ours: hashes and process numbers
    ls -1t "$1" | tail -n "+$(($2 + 1))" | while read -r entry; do rm -rf -- "${1:?}/$entry"; done
}
