#!/bin/bash
# A guest is destroyed in the middle of its writes, three times: what its disk had acknowledged is there, on the machine's disk.
# Time: quick
# Limit: 300
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

truncate -s 192M "$SCENARIO_TEMP/disk"

# Each record is written and synced, and then told on the console; beside that, much is written that nobody waits for. A
# round's records follow those of the round before.
# shellcheck disable=SC2016 # dom0's shell expands these
in_dom0 --smp 2 --memory 1536 --timeout "$(seconds 250)" --disk "$SCENARIO_TEMP/disk" '
next=0
for round in 1 2 3; do
    guest="while :; do dd if=/dev/zero of=/dev/xvda bs=1M seek=128 count=64 2>/dev/null; done &
i=$next
while [ \$i -lt 2000 ]; do
    yes \"record \$i of round $round\" | head -c 65536 | dd of=/dev/xvda bs=64k seek=\$i conv=notrunc,fsync 2>/dev/null && echo \"acked \$i\"
    i=\$((i + 1))
done"
    write_cfg w$round "memory = 96" "disk = [ \"phy:/dev/vda,xvda,w\" ]" "extra = \"console=hvc0 $(run_word "$guest")\""
    dom create /run/w$round.cfg
    expect w$round "^acked $((next + 20))" 120
    dom destroy w$round
    last=$(console w$round | sed -n "s/^acked \([0-9]*\)$/\1/p" | tail -n 1)
    echo "round $round acknowledged $next to $last"
    next=$((last + 1))
done
audit'

# On the image itself, now that the machine is off.
checked=0
while read -r round first last; do
    for ((record = first; record <= last; record++)); do
        cmp -s <(yes "record $record of round $round" | head -c 65536) \
            <(dd if="$SCENARIO_TEMP/disk" bs=64k skip="$record" count=1 status=none) ||
            fail "record $record, which round $round had acknowledged, is not on the disk"
        checked=$((checked + 1))
    done
done < <(sed -n 's/^round \([0-9]*\) acknowledged \([0-9]*\) to \([0-9]*\)$/\1 \2 \3/p' <<<"$OUT")
echo "$checked records checked"
[ $checked -ge 60 ] || fail "too few to mean anything"
