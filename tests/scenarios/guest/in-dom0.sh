# shellcheck shell=sh
# dom0 with real Debian guests: its first disk brings what starts them, the second one (an image like theirs) its tools,
# the others are theirs: guest 1 has vdc and the address 10.9.0.2, guest 2 vdd and 10.9.0.3, and so on.

# Whatever fails, what the guests said last may tell why.
trap 'status=$?; [ $status -eq 0 ] || tail -n 12 /var/log/xen/console/guest-*.log >&2' EXIT

tar -C /boot -xf /dev/vda
mkdir -p /tools
mount -t ext4 /dev/vdb1 /tools
for directory in proc sys dev run; do mount -o bind /$directory /tools/$directory; done
cp /boot/guest.img.key /tools/root/key
chmod 600 /tools/root/key
dom bridge-create xenbr0 10.9.0.1/24

# tools COMMAND...: a program of Debian's, in dom0.
tools() { chroot /tools "$@"; }

# guest_disk NUMBER: the letter of its disk.
guest_disk() { printf '%s' "/dev/vd$(echo cdefghij | cut -c"$1")"; }

# guest_cfg NUMBER LINE...: a configuration named gNUMBER, started with its kernel from dom0.
guest_cfg() {
    number=$1; shift
    write_cfg "g$number" "kernel = \"/boot/guest.img.vmlinuz\"" "ramdisk = \"/boot/guest.img.initrd\"" \
        "disk = [ \"phy:$(guest_disk "$number"),xvda,w\" ]" "vif = [ \"bridge=xenbr0\" ]" \
        "extra = \"root=/dev/xvda1 ro console=hvc0 ip=10.9.0.$((number + 1))::10.9.0.1:255.255.255.0:g$number::off systemd.hostname=g$number\"" "$@"
}

# in_guest NUMBER COMMAND...: by ssh, as root.
in_guest() {
    number=$1; shift
    chroot /tools ssh -q -i /root/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=30 \
        -o ServerAliveInterval=20 -o ServerAliveCountMax=9 "root@10.9.0.$((number + 1))" "$@"
}

# start_guest NUMBER: creates it and waits until ssh answers.
start_guest() {
    dom create "/run/g$1.cfg"
    expect "g$1" "login:" 200
    until_true 60 in_guest "$1" true || { console "g$1" | tail -n 30 >&2; fail "guest $1 does not answer by ssh"; }
}
