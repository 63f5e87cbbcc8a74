#!/bin/bash
# A hundred domUs of stock Debian 6.1 at once: all come up, answer on their consoles, and stop. How long each took to start,
# and what the hypervisor keeps for each beside its own pages.
# Time: long
# Limit: 2400
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# shellcheck disable=SC2016 # dom0's shell expands these
in_dom0 --smp 4 --memory 13312 --dom0-mem 1024 --timeout "$(seconds 2300)" "count=${SCENARIO_GUESTS:-100}"'
hundredths() { set -- $(cut -d " " -f 1 /proc/uptime | tr . " "); echo $(($1 * 100 + 1$2 - 100)); }
# domu_pages: the pages all guests have, as the hypervisor counts them.
domu_pages() { dom list --json | awk "/\"id\":/ { id = \$2 + 0 } /\"memory_pages\":/ && id { sum += \$2 } END { print sum + 0 }"; }

# The first one makes dom0 load and keep things that the others use, too.
write_cfg first "memory = 96" "extra = \"console=hvc0\""
dom create /run/first.cfg
expect first "guest up" 60
dom destroy first
sleep 2

free0=$(free_pages)
number=0
while [ $number -lt $count ]; do
    number=$((number + 1)) name=g$number
    write_cfg $name "memory = 96" "extra = \"console=hvc0\""
    begun=$(hundredths)
    dom create /run/$name.cfg
    created=$(hundredths)
    expect $name "guest up" 120
    echo "started $number: created after $((created - begun)), up after $(($(hundredths) - begun)) hundredths of a second" | tee -a /run/times
done
free1=$(free_pages)
kept=$((free0 - free1 - $(domu_pages)))
echo "with $count guests the hypervisor keeps $kept pages more than theirs: $((kept * 4096 / count)) bytes for each"
dom list | tail -n 3

number=0
while [ $number -lt $count ]; do number=$((number + 1)); input g$number "echo \$((6 * 7)) answers"; done
number=0
while [ $number -lt $count ]; do number=$((number + 1)); expect g$number "^42 answers" 120; done
echo "all answer"
# mean FIRST LAST: the mean time in which those were up.
mean() { sed -n "$1,$2s/.*up after \([0-9]*\) .*/\1/p" /run/times | awk "{ sum += \$1 } END { print int(sum / NR) }"; }
tenth=$((count / 10))
early=$(mean 1 $tenth) late=$(mean $((count - tenth + 1)) $count)
echo "the first tenth was up after $early hundredths of a second on average, the last tenth after $late"

number=0
while [ $number -lt $count ]; do number=$((number + 1)); input g$number "poweroff -f"; done
number=0
while [ $number -lt $count ]; do number=$((number + 1)); until_true 120 eval "! domid g$number" || fail "g$number is still there"; done
until_true 30 eval "[ \$(free_pages) -ge $((free0 - 500)) ]" || fail "$free0 pages free before, $(free_pages) after"
echo "all stopped: $free0 pages free before, $(free_pages) after"
audit
[ $late -lt $((early * 2)) ] || fail "starting a guest takes twice as long when there are many"
[ "$HYPERVISOR" = xen ] || [ $((kept * 4096 / count)) -le 20480 ] || fail "the hypervisor keeps more than 20 kB for each"'
has "the count" "$OUT" "^all answer"
