#!/bin/bash
# Two real Debian guests and dom0: a PPTP tunnel between the guests carries traffic, encrypted; and what network and disk
# achieve, for docs/performance.md.
# Time: long
# Limit: 1200
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=guest/lib.sh
source "$ROOT/tests/scenarios/guest/lib.sh"
guests 2

# shellcheck disable=SC2016 # dom0's shell expands these
in_dom0_with_guests --smp 2 --memory 2048 --timeout "$(seconds 1000)" '
for n in 1 2; do guest_cfg $n "memory = 256" "vcpus = 1"; start_guest $n; done

in_guest 1 "ping -c 5 -i 0.2 10.9.0.3" | grep ", 0% packet loss"
in_guest 2 "systemctl start pptpd"
in_guest 1 "pppd call tunnel updetach >/root/tunnel.log 2>&1 </dev/null; cat /root/tunnel.log"
in_guest 1 "ip -brief addr show ppp0; lsmod | grep -E \"^ppp_(mppe|async|generic)\""
in_guest 1 "ping -c 10 -i 0.2 10.77.0.1" | grep ", 0% packet loss"
for n in 1 2; do in_guest $n "iperf3 -s -D"; done
in_guest 1 "iperf3 -c 10.77.0.1 -t 5 -f m" | grep receiver >/run/tunnel
[ "$(in_guest 1 "cat /sys/class/net/ppp0/statistics/tx_bytes")" -gt 100000 ] || fail "the tunnel carried nothing"

measured() { printf "%-40s %s\n" "$1" "$2"; }
# mbits COMMAND...: of an iperf3 run, its receiver s rate.
mbits() { "$@" | sed -n "s/.* \([0-9.]* Mbits\/sec\).*receiver.*/\1/p"; }
measured "tunnel, domU to domU" "$(sed -n "s/.* \([0-9.]* Mbits\/sec\).*/\1/p" /run/tunnel)"
measured "dom0 to domU" "$(mbits tools iperf3 -c 10.9.0.2 -t 10 -f m)"
measured "domU to dom0" "$(mbits tools iperf3 -c 10.9.0.2 -t 10 -f m -R)"
measured "domU to domU" "$(mbits in_guest 1 iperf3 -c 10.9.0.3 -t 10 -f m)"
in_guest 2 "systemctl poweroff" || true
# speed RW BS: of a disk in MB/s, and operations a second.
fio_line="fio --name=f --filename=/root/fio --size=192M --direct=1 --ioengine=libaio --iodepth=16 --runtime=15 --time_based --minimal"
speed() { "$@" | awk -F ";" "{ printf \"%d KB/s, %d a second\", \$7 + \$48, \$8 + \$49 }"; }
for work in "write 1m" "read 1m" "randread 4k" "randwrite 4k"; do
    set -- $work
    measured "disk, $1 $2, domU" "$(speed in_guest 1 $fio_line --rw=$1 --bs=$2)"
    measured "disk, $1 $2, dom0 itself" "$(speed tools $fio_line --rw=$1 --bs=$2)"
done
in_guest 1 "systemctl poweroff" || true
until_true 90 eval "! domid g1 && ! domid g2" || fail "they are still there"
audit'
