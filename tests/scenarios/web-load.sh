#!/bin/bash
# A guest of 256 MiB serves WordPress, with Debian's Apache, PHP and MariaDB, to a client in dom0: 5000 requests of its
# front page, none failed. The rate is for docs/performance.md.
# Time: long
# Limit: 7200
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=guest/lib.sh
source "$ROOT/tests/scenarios/guest/lib.sh"
requests=${SCENARIO_REQUESTS:-5000}
guests 1

# shellcheck disable=SC2016 # dom0's shell expands these
in_dom0_with_guests --smp "$CPUS" --memory 2048 --timeout "$(seconds 7000)" "requests=$requests cpus=$CPUS"'
guest_cfg 1 "memory = 256" "vcpus = $cpus"
start_guest 1
in_guest 1 "systemctl start mariadb apache2"
page() { tools curl -sS -m $((120 * SLOW)) "$@" http://10.9.0.2/; }
page >/run/page
grep -q "<title>A guest of Hospes" /run/page || fail "the front page is: $(head -c 1000 /run/page)"
# PHP has compiled it now.
for try in 1 2 3; do page -o /dev/null -w "one page alone: %{time_total} s\n"; done
tools ab -q -l -s $((120 * SLOW)) -n $requests -c 4 http://10.9.0.2/
in_guest 1 "free -k"
in_guest 1 "systemctl poweroff" || true
until_true 120 eval "! domid g1" || fail "it is still there"
audit'
has "requests" "$OUT" "^Complete requests: +$requests$"
has "failures" "$OUT" "^Failed requests: +0$"
has_not "answers" "$OUT" "^Non-2xx"
