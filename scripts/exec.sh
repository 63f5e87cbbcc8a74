# shellcheck shell=bash
# --exec: a command for dom0, over a channel of its own.
#
# A virtio-serial device has three ports. When dom0 says on `hospes.control` that it is ready, the command goes in there,
# as one line in base64, and its exit status comes back as one line; its stdout and stderr have a port each. So nothing
# is framed or escaped, and what the kernel prints meanwhile goes to the serial console, which nobody but the log file
# sees.
#
# The ports end in plain files, which never block QEMU, and the device works without ioeventfd: when a write returns in
# dom0, its bytes are in the file. So when the status has arrived, everything has.

# Runs OPT_EXEC and exits as --help promises.
exec_in_dom0() {
    local run log input sender status qemu limit=() result=0
    mkdir -p "$DIST/logs" "$CACHE/runs"
    forget_old "$DIST/logs" 50
    run=$(mktemp -d "$CACHE/runs/XXXXXX")
    log=${OPT_SERIAL_LOG:-$DIST/logs/serial-$(date +%Y%m%d-%H%M%S)-$$.log}
    : >"$log"
    : >"$run/out"
    : >"$run/err"
    : >"$run/control"
    # QEMU must see no end of its input: at the end it would tell dom0 that nobody listens, and dom0's writes would wait.
    # A FIFO opened for both directions has none.
    mkfifo "$run/command"
    exec {input}<>"$run/command"
    {
        # UEFI firmware reads from this device as from a console: nothing may stand there before dom0 does.
        until grep -qax 'hospes ready' <(tr -d '\r' <"$run/control"); do sleep 0.1; done
        printf '%s' "$OPT_EXEC" | base64 -w 0
        echo
    } >&"$input" &
    sender=$!

    qemu_command
    QEMU+=(-serial "file:${log//,/,,}" -device "virtio-serial-pci,ioeventfd=off,max_ports=4"
        -chardev stdio,id=control,signal=off -device virtserialport,nr=1,chardev=control,name=hospes.control
        -chardev "file,id=out,path=$run/out" -device virtserialport,nr=2,chardev=out,name=hospes.stdout
        -chardev "file,id=err,path=$run/err" -device virtserialport,nr=3,chardev=err,name=hospes.stderr)
    say "running in dom0: $OPT_EXEC"
    [ -z "$OPT_TIMEOUT" ] || limit=(timeout -k 5 "$OPT_TIMEOUT")
    "${limit[@]}" "${QEMU[@]}" <&"$input" >"$run/control" 2>"$run/qemu" 4>&- &
    qemu=$!
    # Whatever ends this script ends the machine.
    # shellcheck disable=SC2064 # the values of now are meant
    trap "kill $qemu $sender 2>/dev/null || true; rm -rf '$run'" EXIT
    tail -q -s 0.2 -c +1 -f --pid="$qemu" "$run/out" 4>&- &
    tail -q -s 0.2 -c +1 -f --pid="$qemu" "$run/err" >&2 4>&- &
    wait "$qemu" || result=$?
    kill "$sender" 2>/dev/null || true
    wait
    status=$(tr -d '\r' <"$run/control" | sed -n 's/^status \([0-9][0-9]*\)$/\1/p' | tail -n 1)
    [ -z "$status" ] || exit "$status"
    sed 's/^/qemu-run.sh: /' "$run/qemu" >&2
    if [ "$result" = 124 ] || [ "$result" = 137 ]; then
        printf 'qemu-run.sh: the command did not end within %s s; the serial log is %s\n' "$OPT_TIMEOUT" "$log" >&2
        exit 124
    fi
    printf 'qemu-run.sh: the machine stopped before the command ended; the serial log is %s\n' "$log" >&2
    exit 125
}
