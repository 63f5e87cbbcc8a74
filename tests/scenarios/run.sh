#!/bin/bash
# Runs the scenarios: whole-system tests that look at Hospes from where a user stands.
#
#   tests/scenarios/run.sh [--long] [--hypervisor xen] [NAME...]
#
# A scenario is a bash script in this directory whose header says, one a line:
#   # Time: quick or long         long ones run with --long only, or by name
#   # Limit: SECONDS              after that it is stopped and has failed
#   # On: hospes, xen, any        which hypervisor it is about; `any` runs on the one that is asked for
# It sources lib.sh, and fails by exiting with anything but 0. Two run at a time; one line each; the closing line is
# "N passed, N failed".
set -euo pipefail
HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd -- "$HERE/../.." && pwd)
export ROOT
LOGS=$ROOT/dist/scenarios
JOBS=${HOSPES_JOBS:-2}
# On a machine that is busy otherwise: every limit times this.
export SCENARIO_SLOW=${SCENARIO_SLOW:-1}

long='' hypervisor=hospes names=()
while [ $# -gt 0 ]; do
    case $1 in
        --long) long=1 ;;
        --hypervisor) hypervisor=${2:?--hypervisor wants hospes or xen}; shift ;;
        -*) echo "run.sh: unknown option '$1'" >&2; exit 2 ;;
        *) names+=("$1") ;;
    esac
    shift
done
export SCENARIO_HYPERVISOR=$hypervisor

# header FILE NAME: that line of a scenario's header.
header() { sed -n "s/^# $2: *//p" "$1" | head -n 1; }

# chosen FILE: is this one to run now?
chosen() {
    local name=${1##*/} on
    name=${name%.sh}
    on=$(header "$1" On)
    [ "$on" = any ] || [ "$on" = "$hypervisor" ] || return 1
    [ ${#names[@]} -eq 0 ] || { [[ " ${names[*]} " = *" $name "* ]]; return; }
    [ -n "$long" ] || [ "$(header "$1" Time)" = quick ]
}

# one FILE: runs it, prints its line, and its output if it failed.
one() {
    local name=${1##*/} limit status=0 log start=$SECONDS
    name=${name%.sh}
    log=$LOGS/$name.log
    limit=$(($(header "$1" Limit) * SCENARIO_SLOW))
    SCENARIO_TEMP=$(mktemp -d) || exit 1
    export SCENARIO_TEMP
    timeout -k 15 "$limit" bash "$1" >"$log" 2>&1 </dev/null || status=$?
    rm -rf "$SCENARIO_TEMP"
    case $status in
        0) printf 'ok    %-24s %4s s\n' "$name" $((SECONDS - start)) ;;
        *)
            [ $status != 124 ] || echo "stopped after its limit of $limit s" >>"$log"
            printf 'FAIL  %-24s %4s s  (status %s; all of its output: %s)\n' "$name" $((SECONDS - start)) $status "$log"
            tail -n 25 "$log" | sed 's/^/      | /'
            return 1
            ;;
    esac
}

mkdir -p "$LOGS"
files=()
for file in "$HERE"/*.sh; do
    case ${file##*/} in run.sh | lib.sh | in-dom0.sh) continue ;; esac
    for field in Time Limit On; do
        [ -n "$(header "$file" $field)" ] || { echo "run.sh: $file has no header line '# $field:'" >&2; exit 2; }
    done
    ! chosen "$file" || files+=("$file")
done
for name in "${names[@]}"; do
    [[ " ${files[*]} " = *"/$name.sh "* ]] || { echo "run.sh: there is no scenario '$name' on $hypervisor" >&2; exit 2; }
done
[ ${#files[@]} -gt 0 ] || { echo "run.sh: no scenario chosen" >&2; exit 2; }

passed=0 failed=0 running=0
# The next finished one, counted.
collect() {
    if wait -n; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    running=$((running - 1))
}
for file in "${files[@]}"; do
    [ $running -lt "$JOBS" ] || collect
    one "$file" &
    running=$((running + 1))
done
while [ $running -gt 0 ]; do collect; done

echo
echo "scenarios on $hypervisor: $passed passed, $failed failed"
[ $failed -eq 0 ]
