#!/bin/bash
# One guest with disks and a network: raw files and a block device, read-only and writable, data and packets both ways, more
# of both attached and detached while it runs, refusals that leave nothing, and nothing left when it is gone.
# Time: quick
# Limit: 300
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

truncate -s 8M "$SCENARIO_TEMP/disk"
echo "the block device" | dd of="$SCENARIO_TEMP/disk" conv=notrunc status=none

# shellcheck disable=SC2016 # dom0's shell expands these
in_dom0 --smp 2 --memory 1536 --timeout "$(seconds 250)" --disk "$SCENARIO_TEMP/disk" '
mkdir -p /srv
dd if=/dev/urandom of=/srv/root.img bs=1M count=16 2>/dev/null
dd if=/dev/urandom of=/srv/data.img bs=1M count=4 2>/dev/null
truncate -s 4M /srv/more.img
sum=$(md5sum </srv/root.img)

# refused WORDS COMMAND...: the command fails, and its one line says so.
refused() {
    words=$1; shift
    ! "$@" >/dev/null 2>/run/err || fail "not refused: $*"
    [ $(wc -l </run/err) = 1 ] && grep -qF -- "$words" /run/err || fail "$* says: $(cat /run/err)"
}
loops() { cat /sys/block/loop*/loop/backing_file 2>/dev/null | wc -l; }

write_cfg g "memory = 96" "extra = \"console=hvc0\"" "disk = [ \"/srv/root.img,raw,xvda,w\", \"file:/srv/data.img,xvdb,r\"," \
    "  \"phy:/dev/vda,xvdc,w\" ]" "vif = [ \"ip=10.9.0.2\" ]"
refused "there is no bridge \`xenbr0\`; \`dom bridge-create xenbr0\` makes one" dom create /run/g.cfg
dom bridge-create xenbr0 10.9.0.1/24
refused "there is an interface \`xenbr0\` already" dom bridge-create xenbr0
mv /srv/data.img /srv/other.img
refused "the disk xvdb: /srv/data.img cannot be opened: No such file" dom create /run/g.cfg
mv /srv/other.img /srv/data.img

dom create /run/g.cfg
expect g "guest up" 90
dom block-list g
dom network-list g

# Data: what the guest reads is what the file has, and what it writes and syncs is in the file.
input g "md5sum </dev/xvda | sed s/^/sum:/; head -c 16 /dev/xvdc | sed s/^/xvdc:/"
expect g "^sum:$sum"
expect g "^xvdc:the block device"
input g "dd if=/dev/xvda of=/dev/xvdc bs=1M count=4 conv=fsync; echo \"copied: \$?\""
expect g "^copied: 0"
[ "$(dd if=/dev/vda bs=1M count=4 2>/dev/null | md5sum)" = "$(dd if=/srv/root.img bs=1M count=4 2>/dev/null | md5sum)" ] || fail "the copy differs"
input g "echo x >/dev/xvdb; echo \"read-only: \$?\""
expect g "^read-only: [1-9]"

# Packets.
input g "ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up; ping -c 3 -i 0.2 10.9.0.1; echo \"pinged: \$?\""
expect g "^pinged: 0"
ping -c 3 -i 0.2 10.9.0.2
input g "cat /sys/class/net/eth0/address | sed s/^/mac:/"
expect g "^mac:00:16:3e:"

# More of both while it runs.
refused "/srv/root.img is a disk of domain \`g\` already" dom block-attach g /srv/root.img,raw,xvdd
refused "domain \`g\` has a disk xvda already" dom block-attach g /srv/more.img,raw,sda
refused "the disk xvdd: /srv/none.img cannot be opened" dom block-attach g /srv/none.img,raw,xvdd
refused "there is no bridge \`br9\`" dom network-attach g bridge=br9
dom block-attach g /srv/more.img,raw,xvdd,w
[ "$(loops)" = 3 ] || fail "$(loops) loop devices, not 3"
input g "echo written later | dd of=/dev/xvdd conv=fsync; echo \"later: \$?\""
expect g "^later: 0"
[ "$(head -c 13 /srv/more.img)" = "written later" ] || fail "the attached disk has: $(head -c 13 /srv/more.img)"
dom block-detach g xvdd
input g "[ -e /dev/xvdd ] || echo \"xvdd is gone\""
expect g "^xvdd is gone"
[ "$(loops)" = 2 ] || fail "$(loops) loop devices, not 2"
refused "domain \`g\` has no disk xvdd" dom block-detach g xvdd
dom network-attach g mac=00:16:3e:00:00:99
input g "cat /sys/class/net/eth1/address | sed s/^/second:/"
expect g "^second:00:16:3e:00:00:99"
dom network-list --json
dom network-detach g 00:16:3e:00:00:99
input g "[ -e /sys/class/net/eth1 ] || echo \"eth1 is gone\""
expect g "^eth1 is gone"

# Gone in the middle of writing: nothing stays.
input g "dd if=/dev/zero of=/dev/xvda bs=64k &"
sleep 1
dom destroy g
left=$(xenstore-list /local/domain/0/backend/vbd; xenstore-list /local/domain/0/backend/vif; ls /sys/bus/xen-backend/devices; ls /sys/class/net/xenbr0/brif)
[ -z "$left" ] || fail "what stays: $left"
until_true 5 sh -c "! cat /sys/block/loop*/loop/backing_file" || fail "loop devices stay: $(cat /sys/block/loop*/loop/backing_file)"
dom bridge-delete xenbr0
dom list
audit'
