# shellcheck shell=bash
# The command line.

OPT_COMMAND=run
OPT_SMP=2
OPT_MEMORY=2048
OPT_DOM0_MEM=512
OPT_KERNEL=bookworm
OPT_INITRD=
OPT_APPEND=
OPT_XEN_APPEND=
OPT_DISKS=()
OPT_NIC=virtio
OPT_HYPERVISOR=
OPT_PROFILE=${HOSPES_PROFILE:-}
OPT_DIRECT=
OPT_ICOUNT=
OPT_GDB=
OPT_ACCEL=
OPT_TIMEOUT=
OPT_DRY_RUN=
OPT_EXEC=
OPT_EXEC_SET=
OPT_SERIAL_LOG=
OPT_QEMU=()
OPT_LONG=
OPT_UEFI=
OPT_OUTPUT=
OPT_SIZE=2048
OPT_PACKAGES=()
OPT_SETUP=

usage() {
    cat <<'END'
Usage: ./qemu-run.sh [OPTIONS]                boot dom0 on Hospes and give you its shell (Ctrl-A X ends QEMU)
       ./qemu-run.sh [OPTIONS] --exec 'CMD'   boot, run CMD as root in dom0, print its output, exit with its status
       ./qemu-run.sh test [--long]            set up everything and run the tests CI runs (--long: all there are)
       ./qemu-run.sh bench                    time common operations on Hospes and on real Xen, side by side
       ./qemu-run.sh build                    set up and build everything, start nothing
       ./qemu-run.sh guest-image [OPTIONS]    make a disk with a Debian system for a domU

Everything missing is installed, downloaded or built first. Downloads are cached in .cache/, results are in dist/.

The machine
  --smp N             CPUs of the machine (2)
  --memory MIB        its memory (2048)
  --disk IMAGE        a raw disk image on virtio-blk; ahci:IMAGE puts it on AHCI. May be repeated
  --nic MODEL         its network card: virtio, e1000 or none (virtio)
  --accel NAME        kvm or tcg. Without it: kvm where /proc/cpuinfo has vmx or svm, else tcg
  --icount            count instructions: the clock advances 1 ns an instruction (tcg only)
  --gdb               wait for gdb on port 1234 before the first instruction
  --qemu ARGUMENT     one more argument for QEMU. May be repeated

What runs on it
  --hypervisor PATH   another hypervisor image; `xen` means Debian's real Xen 4.17, for comparison
  --profile NAME      which build of Hospes: release, or checked: release with debug assertions (release;
                      test: checked)
  --hypervisor-append ARGS   more options for the hypervisor
  --dom0-mem MIB      memory of dom0 (512)
  --kernel VMLINUZ    dom0's kernel: a file, or bookworm, trixie or newest for Debian's own (bookworm)
  --initrd FILE       another initramfs for dom0 (--exec needs the init of the stock one)
  --append ARGS       more arguments for dom0's kernel
  --uefi              start the ISO on UEFI firmware (OVMF) instead of a BIOS
  --direct            start through QEMU's -kernel (multiboot1) instead of GRUB on an ISO (multiboot2)

A guest's disk (guest-image)
  --output FILE       the raw image (dist/guest.img): xvda1 is Debian bookworm on ext4, xvda2 swap. Beside it are
                      FILE.key for ssh as root, FILE.vmlinuz and FILE.initrd to start it with, and FILE.grub: GRUB as
                      a PV kernel, which starts the kernel the guest's own /boot/grub/grub.cfg chooses
  --size MIB          size of the image (2048); it is sparse
  --package NAME      one more Debian package in it. May be repeated
  --setup SCRIPT      shell commands that run in the new system once it is installed

How it runs
  --exec CMD          see above. CMD's stdout and stderr arrive byte for byte; stdin is empty
  --timeout S         give up after S seconds, with status 124
  --serial-log FILE   where the serial console is logged (--exec: a file of its own in dist/logs/)
  --dry-run           prepare everything, then print the QEMU command instead of running it.
                      The choice of kvm or tcg then follows from cpuinfo alone
  --help              this text

Exit status with --exec: CMD's own; 124 after --timeout; 125 if the machine stopped before CMD ended (the file with
the full serial log is then named on stderr). Errors of set-up: 1; a wrong command line: 2.

Environment: HOSPES_CACHE (instead of .cache/), HOSPES_CPUINFO (instead of /proc/cpuinfo), HOSPES_PROFILE.
END
}

# A wrong command line: says so and exits 2.
usage_error() {
    printf 'qemu-run.sh: %s (see ./qemu-run.sh --help)\n' "$*" >&2
    exit 2
}

# number NAME VALUE MIN MAX: refuses what is not a plain decimal number in range.
number() {
    [[ $2 =~ ^[1-9][0-9]{0,8}$ ]] && [ "$2" -ge "$3" ] && [ "$2" -le "$4" ] ||
        usage_error "$1 wants a number from $3 to $4, not '$2'"
}

# existing NAME FILE: refuses a file that cannot be read.
existing() { [ -f "$2" ] && [ -r "$2" ] || [ -b "$2" ] || usage_error "$1: there is no readable file '$2'"; }

options_parse() {
    local option value
    case ${1-} in
        test | bench | build | guest-image) OPT_COMMAND=$1; shift ;;
    esac
    while [ $# -gt 0 ]; do
        option=$1
        shift
        case $option in --*=*) set -- "${option#*=}" "$@"; option=${option%%=*} ;; esac
        case $option in
            --direct) OPT_DIRECT=1 ;;
            --uefi) OPT_UEFI=1 ;;
            --icount) OPT_ICOUNT=1 ;;
            --gdb) OPT_GDB=1 ;;
            --dry-run) OPT_DRY_RUN=1 ;;
            --long)
                [ "$OPT_COMMAND" = test ] || usage_error "--long belongs to 'test'"
                OPT_LONG=1
                ;;
            -h | --help) usage; exit 0 ;;
            --smp | --memory | --disk | --nic | --accel | --qemu | --hypervisor | --profile | --hypervisor-append | \
                --dom0-mem | --kernel | --initrd | --append | --exec | --timeout | --serial-log | --output | --size | --package | --setup)
                [ $# -gt 0 ] || usage_error "$option wants a value"
                value=$1
                shift
                options_value "$option" "$value"
                ;;
            -*) usage_error "unknown option '$option'" ;;
            *) usage_error "unknown command '$option'" ;;
        esac
    done
    options_agree
}

options_value() {
    case $1 in
        --smp) number "$1" "$2" 1 64; OPT_SMP=$2 ;;
        --memory) number "$1" "$2" 256 1048576; OPT_MEMORY=$2 ;;
        --dom0-mem) number "$1" "$2" 64 1048576; OPT_DOM0_MEM=$2 ;;
        --timeout) number "$1" "$2" 1 1000000; OPT_TIMEOUT=$2 ;;
        --disk) existing "$1" "${2#ahci:}"; OPT_DISKS+=("$2") ;;
        --initrd) existing "$1" "$2"; OPT_INITRD=$2 ;;
        --output) OPT_OUTPUT=$(realpath -m "$2") ;;
        --size) number "$1" "$2" 1024 1048576; OPT_SIZE=$2 ;;
        --package)
            [[ $2 =~ ^[a-z0-9][a-z0-9+.-]+$ ]] || usage_error "$1: '$2' is no name of a package"
            OPT_PACKAGES+=("$2")
            ;;
        --setup) existing "$1" "$2"; OPT_SETUP=$2 ;;
        --append) OPT_APPEND=$2 ;;
        --hypervisor-append) OPT_XEN_APPEND=$2 ;;
        --serial-log) OPT_SERIAL_LOG=$2 ;;
        --qemu) OPT_QEMU+=("$2") ;;
        --exec) OPT_EXEC=$2; OPT_EXEC_SET=1 ;;
        --kernel)
            case $2 in bookworm | trixie | newest) ;; *) existing "$1" "$2" ;; esac
            OPT_KERNEL=$2
            ;;
        --hypervisor)
            [ "$2" = xen ] || existing "$1" "$2"
            OPT_HYPERVISOR=$2
            ;;
        --nic | --accel | --profile)
            case $1=$2 in
                --nic=virtio | --nic=e1000 | --nic=none) OPT_NIC=$2 ;;
                --accel=kvm | --accel=tcg) OPT_ACCEL=$2 ;;
                --profile=release | --profile=checked) OPT_PROFILE=$2 ;;
                *) usage_error "$1 does not know '$2'" ;;
            esac
            ;;
    esac
}

# What is right by itself but wrong together; and what follows from the command.
options_agree() {
    if [ -z "$OPT_PROFILE" ]; then
        case $OPT_COMMAND in test) OPT_PROFILE=checked ;; *) OPT_PROFILE=release ;; esac
    fi
    [ "$OPT_DOM0_MEM" -lt "$OPT_MEMORY" ] ||
        usage_error "--dom0-mem $OPT_DOM0_MEM does not fit into --memory $OPT_MEMORY"
    [ -z "$OPT_UEFI" ] || [ -z "$OPT_DIRECT" ] || usage_error "--uefi starts the ISO: it does not go with --direct"
    if [ "$OPT_COMMAND" = guest-image ]; then
        OPT_OUTPUT=${OPT_OUTPUT:-$DIST/guest.img}
    else
        [ -z "$OPT_OUTPUT$OPT_SETUP${OPT_PACKAGES[*]}" ] || usage_error "--output, --setup and --package belong to 'guest-image'"
    fi
    [ -z "$OPT_ICOUNT" ] || [ "$OPT_ACCEL" != kvm ] || usage_error "--icount works with --accel tcg only"
    [ -z "$OPT_EXEC_SET" ] || [ -n "$OPT_EXEC" ] || usage_error "--exec wants a command"
    if [ "$OPT_COMMAND" != run ]; then
        [ -z "$OPT_EXEC_SET$OPT_DRY_RUN" ] || usage_error "'$OPT_COMMAND' goes with neither --exec nor --dry-run"
    fi
}
