#!/bin/bash
# Weights and caps hold within 5 % over 30 s of guest time. Instructions are counted, so the machine's noise does not count.
# Three spinning guests on one CPU with weights 1 : 2 : 4, then two of them with caps of 40 % and 25 %.
# Time: long
# Limit: 3000
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# shellcheck disable=SC2016 # dom0's shell expands these
in_dom0 --smp 1 --icount --timeout "$(seconds 2800)" --memory 1024 '
spin=$(run_word "echo spinning; while :; do :; done")
for name in a b c; do
    write_cfg $name "memory = 96" "extra = \"console=hvc0 $spin\""
    dom create /run/$name.cfg
done
for name in a b c; do expect $name "^spinning" 300; done

# cpu_ms NAME: CPU time it has had.
cpu_ms() { dom list $1 --json | sed -n "s/.*\"cpu_time_ns\": *\([0-9]*\)[0-9]\{6\}[^0-9]*$/\1/p"; }

# measure NAME...: CPU time in ms that each gets in 30 s, as words.
measure() {
    before= after=
    for name in "$@"; do before="$before $(cpu_ms $name)"; done
    sleep 30
    for name in "$@"; do after="$after $(cpu_ms $name)"; done
    echo "$before $after" | awk -v n=$# "{ for (i = 1; i <= n; i++) printf \"%d \", \$(i + n) - \$i }"
}

# near WHAT GOT WANTED: within 5 %.
near() {
    echo "$1: $2 ms, $3 ms would be exact"
    [ $(($2 * 100)) -ge $(($3 * 95)) ] && [ $(($2 * 100)) -le $(($3 * 105)) ] || fail "$1: that is more than 5 % off"
}

dom sched a --weight 256
dom sched b --weight 512
dom sched c --weight 1024
sleep 1
set -- $(measure a b c)
sum=$(($1 + $2 + $3))
near "weight 256" $1 $((sum / 7))
near "weight 512" $2 $((sum * 2 / 7))
near "weight 1024" $3 $((sum * 4 / 7))
[ $sum -ge 28000 ] || fail "the guests had $sum ms of 30 s together"

dom destroy c
dom sched a --cap 40
dom sched b --cap 25
sleep 1
set -- $(measure a b)
near "cap 40" $1 12000
near "cap 25" $2 7500
for name in a b; do dom destroy $name; done
audit'
