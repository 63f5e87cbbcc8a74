#!/bin/bash
# A hundred domUs of stock Debian 6.1 at once (SCENARIO_GUESTS says another number): all come up, answer on their consoles and
# stop. What the hypervisor keeps for each beside the pages it sees, and what each costs to start: as much when there are
# many as when there are few.
#
# Starting is measured in CPU time of QEMU, not by a clock: the machine may have other work. What the guests use that run
# already (as much as they use in the end, when all are idle, by their number) is taken off. Other work still makes it more,
# never less, so the cheapest of the first third are compared with the cheapest of the last third.
# Time: long
# Limit: 2700
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

count=${SCENARIO_GUESTS:-100}
# Started together. A guest has 96 MiB, and 84 when it is up.
batch=4
memory=$((1664 + count * 86))

# shellcheck disable=SC2016 # dom0's shell expands these
commands="count=$count batch=$batch"'
# One program that asks for all, not one for each.
domid() { dom domid $1 2>/dev/null; }
# each FIRST LAST COMMAND...: the command with "gN" behind it, for each.
each() {
    number=$1 last=$2; shift 2
    while [ $number -le $last ]; do "$@" g$number; number=$((number + 1)); done
}
create() { write_cfg $1 "memory = 96" "extra = \"console=hvc0 quiet\""; dom create /run/$1.cfg; }
is_up() { expect $1 "guest up" 200; }
less() { dom mem-set $1 84; }
ask() { input $1 "echo \$((6 * 7)) answers"; }
answers() { expect $1 "^42 answers" 120; }
off() { input $1 "poweroff -f"; }
gone() { until_true 120 eval "! domid $1" || fail "$1 is still there"; }

# The first ones make dom0 and the hypervisor load and keep things that the others use, too.
each 1 $batch create
each 1 $batch is_up
each 1 $batch off
each 1 $batch gone
rm /var/log/xen/console/guest-g*.log
sleep 2

free=$(free_pages) others=$(pages_of_others)
first=1
while [ $first -le $count ]; do
    last=$((first + batch - 1))
    echo "begin $first"
    each $first $last create
    each $first $last is_up
    echo "up $first"
    each $first $last less
    first=$((last + 1))
done
each 1 $count ask
each 1 $count answers
echo "all $count answer"
input g1 "cat /proc/meminfo"
expect g1 "^VmallocChunk"
console g1 | grep "^Mem"

sleep 5
echo "quiet 1"
sleep 20
echo "quiet 2"
dom list -v | tail -n 3
! dom list | grep crashed || fail "some have crashed"
kept=$((others - $(pages_of_others)))
echo "with $count guests the hypervisor keeps $kept pages more than those that they see: $((kept * 4096 / count)) bytes for each"

each 1 $count off
each 1 $count gone
until_true 30 eval "[ \$(free_pages) -ge $((free - 500)) ]" || fail "$free pages free before, $(free_pages) after"
echo "all stopped: $free pages free before, $(free_pages) after"
audit
[ "$HYPERVISOR" = xen ] || [ $((kept * 4096 / count)) -le 20480 ] || fail "the hypervisor keeps more than 20 kB for each"
echo done'

# ticks: CPU time QEMU has used, in clock ticks (user and system, the 14th and 15th field).
ticks() { sed 's/.*) //' "/proc/$(cat "$SCENARIO_TEMP/pid")/stat" | awk '{ print $12 + $13 }'; }
# Shows what it reads, and notes when the marks came, in ticks and in µs.
stamps() {
    local line
    while IFS= read -r line; do
        printf '%s\n' "$line"
        case $line in
            "begin "* | "up "* | "quiet "*) echo "$line $(ticks) ${EPOCHREALTIME/./}" >>"$SCENARIO_TEMP/stamps" ;;
        esac
    done
}
dom0 --smp 2 --memory $memory --dom0-mem 1024 --timeout "$(seconds 2600)" --qemu -pidfile --qemu "$SCENARIO_TEMP/pid" \
    --exec "$(dom0_commands "$commands")" | stamps | tee "$SCENARIO_TEMP/out"
has "the end" "$(cat "$SCENARIO_TEMP/out")" "^done"

# What starting a batch cost: CPU seconds a guest, and seconds by the clock.
awk -v batch=$batch -v count="$count" -v hertz="$(getconf CLK_TCK)" '
    $1 == "begin" { begun[$2] = $3; at[$2] = $4; order[++batches] = $2 }
    $1 == "up" { used[$2] = $3; until[$2] = $4 }
    $1 == "quiet" { if ($2 == 1) { quiet = $3; since = $4 } else idle = ($3 - quiet) / ($4 - since) }
    function least(from, to, found, i) { for (i = found = from; i <= to; i++) if (cost[i] < cost[found]) found = i; return cost[found] }
    END {
        printf "%d idle guests: %.1f %% of a CPU\n", count, idle * 1e6 / hertz * 100
        for (i = 1; i <= batches; i++) {
            b = order[i]
            wall = until[b] - at[b]
            cost[i] = (used[b] - begun[b] - idle * wall * (b - 1) / count) / hertz / batch
            printf "from guest %d on: %.2f s of CPU time each, %.1f s by the clock for %d\n", b, cost[i], wall / 1e6, batch
        }
        third = int(batches / 3)
        early = least(1, third); late = least(batches - third + 1, batches)
        printf "the cheapest of the first third took %.2f s each, of the last third %.2f s\n", early, late
        exit !(late < early * 1.3)
    }' "$SCENARIO_TEMP/stamps" || fail "starting a guest takes longer when there are many"
