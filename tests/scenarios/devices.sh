#!/bin/bash
# dom0's stock drivers work: virtio-blk and AHCI disks are read and written, virtio-net and e1000 ping.
# Time: quick
# Limit: 300
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

head -c 8388608 /dev/urandom >"$SCENARIO_TEMP/virtio.img"
head -c 8388608 /dev/urandom >"$SCENARIO_TEMP/ahci.img"
sum() { sha256sum <"$SCENARIO_TEMP/$1.img" | cut -c1-64; }
wanted="$(sum virtio) vda
$(sum ahci) sda"
# shellcheck disable=SC2016 # dom0's shell expands these
disks='for d in vda sda; do echo "$(sha256sum </dev/$d | cut -c1-64) $d"; printf "written to $d" >/dev/$d; done; sync'
# shellcheck disable=SC2016
ping='ip addr add 10.0.2.15/24 dev eth0 && ip link set eth0 up && ping -q -c 5 -i 0.2 10.0.2.2 && readlink /sys/class/net/eth0/device/driver'

status dom0 --smp 2 --disk "$SCENARIO_TEMP/virtio.img" --disk "ahci:$SCENARIO_TEMP/ahci.img" --nic virtio \
    --exec "until [ -b /dev/sda ]; do usleep 100000; done; { $disks; } && { $ping; } >&2"
equal "status with virtio-net" "$STATUS" 0
equal "what was read" "$OUT" "$wanted"
has "ping" "$ERR" "5 packets received, 0% packet loss"
has "driver" "$ERR" "virtio_net$"
equal "written through virtio-blk" "$(head -c 14 "$SCENARIO_TEMP/virtio.img")" "written to vda"
equal "written through AHCI" "$(head -c 14 "$SCENARIO_TEMP/ahci.img")" "written to sda"

status dom0 --smp 2 --direct --nic e1000 --exec "$ping"
equal "status with e1000" "$STATUS" 0
has "ping" "$OUT" "5 packets received, 0% packet loss"
has "driver" "$OUT" "e1000$"
