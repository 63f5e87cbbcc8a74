#!/bin/bash
# --exec hands over stdout and stderr byte for byte, while the kernel floods the console.
# Time: quick
# Limit: 200
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# shellcheck disable=SC2016 # dom0's shell expands these
flood='(i=0; while [ $i -lt 4000 ]; do echo "<1>flood $i of the kernel log, which shares the console" >/dev/kmsg; i=$((i+1)); done; touch /run/flooded) &'
# shellcheck disable=SC2016
bytes='dd if=/dev/urandom of=/run/a bs=1024 count=1024 2>/dev/null; dd if=/dev/urandom of=/run/b bs=1000 count=100 2>/dev/null
    cat /run/a; cat /run/b >&2
    sha256sum /run/a /run/b >/dev/kmsg; [ -e /run/flooded ] && exit 3; wait; exit 0'
status dom0 --serial-log "$SCENARIO_TEMP/serial" --exec "$flood $bytes"
[ "$STATUS" != 3 ] || fail "the flood was over before the bytes were sent: the test is wrong"
equal status "$STATUS" 0
equal "bytes on stdout" "$(stat -c %s "$SCENARIO_TEMP/out")" 1048576
equal "bytes on stderr" "$(stat -c %s "$SCENARIO_TEMP/err")" 100000
# The kernel log, on a channel of its own, says what was sent.
has "the flood" "$(cat "$SCENARIO_TEMP/serial")" "flood 3999 of"
for stream in out:a err:b; do
    sum=$(sha256sum <"$SCENARIO_TEMP/${stream%:*}" | cut -d ' ' -f 1)
    has "hash of ${stream%:*}" "$(tr -d '\r' <"$SCENARIO_TEMP/serial")" "$sum  /run/${stream#*:}"
done
