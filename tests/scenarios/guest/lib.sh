# shellcheck shell=bash
# For scenarios with real Debian guests, after lib.sh: the image, and machines that have it.

GUEST_PACKAGES=(iperf3 fio pptpd pptp-linux ppp apache2 apache2-utils libapache2-mod-php php-cli php-mysql mariadb-server
    wordpress wordpress-theme-twentytwentyone curl openssh-client)

# guests NUMBER: makes the image (it comes from the cache, if it was ever made), and sets GUESTS, the options of a machine
# with so many disks of it. They all start as the same image; what is written to them lives as long as the machine.
guests() {
    local package options=() number
    for package in "${GUEST_PACKAGES[@]}"; do options+=(--package "$package"); done
    "$FRONT" guest-image --size 2560 "${options[@]}" --setup "$ROOT/tests/scenarios/guest/setup" --output "$SCENARIO_TEMP/guest.img"
    tar -C "$SCENARIO_TEMP" -cf "$SCENARIO_TEMP/boot.tar" guest.img.{key,vmlinuz,initrd,grub}
    GUESTS=(--disk "$SCENARIO_TEMP/boot.tar")
    for ((number = 0; number <= $1; number++)); do
        GUESTS+=(--qemu -drive --qemu "file=$SCENARIO_TEMP/guest.img,format=raw,if=virtio,snapshot=on")
    done
}

# in_dom0_with_guests OPTION... COMMANDS: in_dom0 with guest/in-dom0.sh's functions, too.
in_dom0_with_guests() { in_dom0 "${GUESTS[@]}" "${@:1:$#-1}" "$(cat "$ROOT/tests/scenarios/guest/in-dom0.sh")
${*: -1}"; }
