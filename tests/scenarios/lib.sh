# shellcheck shell=bash disable=SC2034 # the scenarios use OUT and ERR
# What scenarios share. Sourced first by each: it sets the strict mode, too.
set -euo pipefail
: "${ROOT:?run me through tests/scenarios/run.sh}" "${SCENARIO_TEMP:?}" "${SCENARIO_HYPERVISOR:?}"

FRONT=$ROOT/qemu-run.sh

# What every machine of a scenario gets: the hypervisor under test, and a limit.
COMMON=(--profile "${HOSPES_PROFILE:-checked}")
[ "$SCENARIO_HYPERVISOR" != xen ] || COMMON=(--hypervisor xen)
# SCENARIO_ICOUNT=1 is for figures that do not depend on the machine: time is what one CPU's instructions take. Only an idle
# CPU waits for the time of day, so that a disk does not seem to take minutes.
CPUS=2
if [ -n "${SCENARIO_ICOUNT:-}" ]; then
    COMMON+=(--icount --qemu -icount --qemu shift=0,sleep=on)
    CPUS=1
fi

# dom0 OPTION...: the front door on the hypervisor under test.
dom0() { "$FRONT" "${COMMON[@]}" --timeout "$(seconds 150)" "$@"; }

# seconds N: N, or more on a slow machine.
seconds() { echo $(($1 * SCENARIO_SLOW)); }

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# equal WHAT GOT WANTED
equal() {
    [ "$2" = "$3" ] || fail "$1: got '$2', wanted '$3'"
    echo "$1: $2"
}

# has WHAT TEXT PATTERN: some line of the text matches the extended regular expression.
has() { grep -qE -- "$3" <<<"$2" || fail "$1: nothing matches '$3' in: $2"; }

# has_not WHAT TEXT PATTERN
has_not() { ! grep -E -- "$3" <<<"$2" || fail "$1: the line above should not be there (matches '$3')"; }

# status COMMAND...: its exit status, whatever it is; its outputs are in OUT and ERR.
status() {
    STATUS=0
    "$@" >"$SCENARIO_TEMP/out" 2>"$SCENARIO_TEMP/err" || STATUS=$?
    OUT=$(cat "$SCENARIO_TEMP/out")
    ERR=$(cat "$SCENARIO_TEMP/err")
    # Of a long command only its end.
    local last=${*: -1}
    [ ${#last} -le 300 ] || last="... ${last: -300}"
    echo "+ status $STATUS: $last"
    [ -z "$ERR" ] || echo "stderr: ${ERR:0:2000}"
}

# dom0_commands COMMANDS: them, with in-dom0.sh in front.
dom0_commands() { printf 'set -e\nHYPERVISOR=%s SLOW=%s\n%s\n%s' "$SCENARIO_HYPERVISOR" "$SCENARIO_SLOW" "$(cat "$ROOT/tests/scenarios/in-dom0.sh")" "$1"; }

# in_dom0 OPTION... COMMANDS: runs them in dom0 with in-dom0.sh's functions; they fail at the first command that does.
# Their outputs are shown; STATUS, OUT and ERR as with status.
in_dom0() {
    local commands=${*: -1}
    status dom0 "${@:1:$#-1}" --exec "$(dom0_commands "$commands")"
    echo "$OUT"
    equal "status of the commands in dom0" "$STATUS" 0
}
