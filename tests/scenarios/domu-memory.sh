#!/bin/bash
# Destroying a domU gives all of its memory back: 20 rounds.
# Time: quick
# Limit: 500
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# shellcheck disable=SC2016 # dom0's shell expands these
in_dom0 --smp 2 --memory 1536 --timeout "$(seconds 400)" '
write_cfg g "memory = 96" "vcpus = 2" "extra = \"console=hvc0\""
# The heap of real Xen takes a page more now and then: 5 pages in 20 rounds.
slack=0
[ "$HYPERVISOR" != xen ] || slack=2
# The first domU makes dom0 ask for pages that it keeps (room to map grants): it is not counted.
dom create /run/g.cfg
expect g "guest up" 60
dom destroy g
sleep 2
: >/var/log/xen/console/guest-g.log
round=0
while [ $round -lt 20 ]; do
    round=$((round + 1))
    before=$(free_pages)
    dom create /run/g.cfg
    # Some die early in their boot, some late, some when they are up.
    case $((round % 4)) in
        0) expect g "guest up" 60; : >/var/log/xen/console/guest-g.log ;;
        1) ;;
        *) usleep $((round * 100000)) ;;
    esac
    [ $(free_pages) -lt $((before - 20000)) ] || fail "round $round: the guest has no memory"
    dom destroy g
    until_true 10 eval "[ \$(free_pages) -ge $((before - slack)) ]" || fail "round $round: $before pages free before, $(free_pages) after"
done
echo "$round rounds, $before pages free"
audit'
has "rounds" "$OUT" "^20 rounds"
