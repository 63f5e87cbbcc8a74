#!/bin/bash
# Two real Debian guests and dom0: a PPTP tunnel between the guests carries traffic, encrypted; what they write is what is
# read, also by dom0 when one was destroyed in the middle of its writes; and what network and disk achieve, for
# docs/performance.md.
# Time: long
# Limit: 1200
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source=guest/lib.sh
source "$ROOT/tests/scenarios/guest/lib.sh"
guests 2

# Seconds for each figure.
each=8
[ -z "${SCENARIO_ICOUNT:-}" ] || each=3

# shellcheck disable=SC2016 # dom0's shell expands these
in_dom0_with_guests --smp "$CPUS" --memory 2048 --timeout "$(seconds 1000)" "each=$each"'
for n in 1 2; do guest_cfg $n "memory = 256" "vcpus = 1"; start_guest $n; done

in_guest 1 "ping -c 5 -i 0.2 10.9.0.3" | grep ", 0% packet loss"
in_guest 2 "systemctl start pptpd"
in_guest 1 "pppd call tunnel updetach >/root/tunnel.log 2>&1 </dev/null; cat /root/tunnel.log"
in_guest 1 "ip -brief addr show ppp0; lsmod | grep -E \"^ppp_(mppe|async|generic)\""
in_guest 1 "ping -c 10 -i 0.2 10.77.0.1" | grep ", 0% packet loss"
for n in 1 2; do in_guest $n "iperf3 -s -D"; done
in_guest 1 "iperf3 -c 10.77.0.1 -t $each -f m" | grep receiver >/run/tunnel
[ "$(in_guest 1 "cat /sys/class/net/ppp0/statistics/tx_bytes")" -gt 100000 ] || fail "the tunnel carried nothing"

measured() { printf "%-40s %s\n" "$1" "$2"; }
# mbits COMMAND...: of an iperf3 run, its receiver s rate.
mbits() { "$@" | sed -n "s/.* \([0-9.]* Mbits\/sec\).*receiver.*/\1/p"; }
measured "tunnel, domU to domU" "$(sed -n "s/.* \([0-9.]* Mbits\/sec\).*/\1/p" /run/tunnel)"
measured "dom0 to domU" "$(mbits tools iperf3 -c 10.9.0.2 -t $each -f m)"
measured "domU to dom0" "$(mbits tools iperf3 -c 10.9.0.2 -t $each -f m -R)"
measured "domU to domU" "$(mbits in_guest 1 iperf3 -c 10.9.0.3 -t $each -f m)"

# What fio writes through a file system comes back with the right checksums.
fio_line="fio --direct=1 --ioengine=libaio --iodepth=16 --minimal"
in_guest 1 "$fio_line --name=v --filename=/root/verified --size=48M --rw=randwrite --bsrange=4k-64k --verify=crc32c --verify_fatal=1 >/dev/null && rm /root/verified"

# Guest 2 is destroyed while it writes, on its swap partition, so that no file system is in between. Each second it tells
# how much the disk has acknowledged: that much, less the 16 writes that are under way at a time, has to be there.
job="--name=w --rw=write --bs=64k --verify=crc32c"
in_guest 2 "swapoff -a; $fio_line $job --filename=/dev/xvda2 --size=240M --rate=4m --do_verify=0 --status-interval=1" >/run/writes 2>&1 &
acknowledged() { tail -n 1 /run/writes | cut -d ";" -f 47; }
until_true 120 eval "[ \"\$(acknowledged)\" -gt 12000 ]" || fail "it does not write: $(cat /run/writes)"
dom destroy g2
kept=$(($(acknowledged) - 1024))
echo "guest 2 had written $(acknowledged) KiB when it was destroyed"
[ $kept -lt 200000 ] || fail "it had almost finished"
verify="$fio_line $job --filename=/dev/vdd2 --size=${kept}k --verify_only --verify_fatal=1"
tools $verify >/dev/null || fail "what the disk had acknowledged is not there"
printf x | dd of=/dev/vdd2 bs=1 seek=5000000 conv=notrunc,fsync 2>/dev/null
! tools $verify >/dev/null 2>&1 || fail "fio does not notice a wrong byte"

# speed WHERE FILE COMMAND...: of a disk, as fio, run through the command, sees it.
speed() {
    where=$1 file=$2; shift 2
    for work in "write 1m" "read 1m" "randread 4k" "randwrite 4k"; do
        measured "$where, $work" "$("$@" $fio_line --name=f --filename=$file --size=64M --runtime=$each --time_based \
            --rw=${work% *} --bs=${work#* } | awk -F ";" "{ printf \"%d KB/s, %d a second\", \$7 + \$48, \$8 + \$49 }")"
    done
}
# A disk that is a file in memory, so that nothing but the way to it counts.
truncate -s 64M /run/scratch
dom block-attach g1 /run/scratch,raw,xvdb,w
speed "file in memory, domU" /dev/xvdb in_guest 1
dom block-detach g1 xvdb
loop=$(losetup -f)
losetup "$loop" /run/scratch
speed "file in memory, dom0 itself" "$loop" tools
losetup -d "$loop"
# The disk of this machine.
speed "disk, domU" /root/fio in_guest 1
speed "disk, dom0 itself" /root/fio tools
in_guest 1 "systemctl poweroff" || true
until_true 90 eval "! domid g1" || fail "it is still there"
audit'
