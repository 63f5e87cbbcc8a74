#!/bin/bash
# --exec: exit statuses, odd commands, a time limit, a machine that stops early.
# Time: quick
# Limit: 450
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# Quotes, newlines, an empty stdin and a working directory arrive as they are.
status dom0 --direct --exec "printf '%s|' \"a  b\" 'c\$d' \"e'f\"
cat; pwd; id -u; echo to stderr >&2
exit 42"
equal "status of exit 42" "$STATUS" 42
equal "stdout" "$OUT" "a  b|c\$d|e'f|/root
0"
equal "stderr, exactly" "$ERR" "to stderr"

status dom0 --direct --exec "kill -9 \$\$"
equal "status of a command that was killed" "$STATUS" 137

status "$FRONT" "${COMMON[@]}" --direct --timeout 30 --exec "echo begun; sleep 1000"
equal "status after --timeout" "$STATUS" 124
equal "stdout before it" "$OUT" begun
has "what is said" "$ERR" "did not end within 30 s; the serial log is /"
[ -s "${ERR##*serial log is }" ] || fail "the serial log it names is not there: $ERR"
grep -q "Linux version" "${ERR##*serial log is }" || fail "the serial log holds no kernel messages"

status dom0 --direct --exec "echo going; poweroff -f"
equal "status of a machine that stopped" "$STATUS" 125
equal "stdout before it" "$OUT" going
has "what is said" "$ERR" "stopped before the command ended; the serial log is /"

# dom0's kernel panics: the machine ends, and nobody waits for it.
status dom0 --direct --append "panic=5" --exec "echo c >/proc/sysrq-trigger; sleep 1000"
equal "status of a machine whose dom0 panicked" "$STATUS" 125
grep -q "Kernel panic" "${ERR##*serial log is }" || fail "the serial log does not show the panic"
