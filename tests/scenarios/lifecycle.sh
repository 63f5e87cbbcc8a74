#!/bin/bash
# A guest's life through the CLI: names, pausing, vCPUs, memory, shares, SysRq, figures, reboot, shutdown, crash, autostart;
# what it was told while it ran holds after a reboot, and nothing is left of it in the end.
# Time: long
# Limit: 500
# On: any
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# shellcheck disable=SC2016 # dom0's shell expands these
in_dom0 --smp 2 --memory 1536 --serial-log "$SCENARIO_TEMP/serial" --timeout "$(seconds 450)" '
refused() {
    words=$1; shift
    ! "$@" >/dev/null 2>/run/err || fail "not refused: $*"
    [ $(wc -l </run/err) = 1 ] && grep -qF -- "$words" /run/err || fail "$* says: $(cat /run/err)"
}
# is WHAT GOT WANTED
is() { [ "$2" = "$3" ] || fail "$1: got $2, wanted $3"; echo "$1: $2"; }
json() { sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",]*\).*/\1/p"; }

mkdir -p /srv
truncate -s 8M /srv/a.img
truncate -s 8M /srv/b.img
dom bridge-create xenbr0 10.9.0.1/24
write_cfg first "memory = 160" "maxmem = 224" "maxvcpus = 2" "vcpus = 1" "extra = \"console=hvc0\"" \
    "disk = [ \"/srv/a.img,raw,xvda,w\" ]" "vif = [ \"\" ]" "on_crash = \"destroy\""
free=$(free_pages)
dom create /run/first.cfg
expect first "guest up" 90
dom rename first g
refused "there is no domain \`first\`" dom domid first
refused "the name \`g\` is taken by domain 1" dom create /run/first.cfg name=g disk=[] vif=[]
refused "must have 1 to 64 of these characters" dom rename g a/b
is "id" "$(dom domid g)" 1
is "name" "$(dom domname 1)" g
console() { tr -d "\r" </var/log/xen/console/guest-first.log; }
input() { echo "$2" >"$(xenstore-read "/local/domain/$(domid "$1")/console/tty")"; }

# Paused it does not answer.
dom pause g
is "state" "$(dom list g --json | json state)" paused
refused "is paused and cannot hear it" dom shutdown g
refused "is paused already" dom pause g
input g "echo aft\"er the pause\""
sleep 1
! printed g "after the pause" || fail "it runs while it is paused"
dom unpause g
expect g "after the pause"

# vCPUs.
dom vcpu-set g 2
# What udev does in a larger guest.
input g "echo 1 >/sys/devices/system/cpu/cpu1/online"
dom vcpu-set g 2 --wait
input g "echo \"cpus \$(nproc)\""
expect g "^cpus 2"
dom vcpu-pin g 1 0
dom vcpu-pin g all - 1
dom vcpu-pin g 1 0 all
dom vcpu-list g
is "affinity" "$(dom vcpu-list g --json | json affinity | tr "\n" " ")" "all 0 "
is "preferred" "$(dom vcpu-list g --json | json soft_affinity | tr "\n" " ")" "1 all "
refused "nothing is said" dom vcpu-pin g all - -
dom vcpu-set g 1 --wait
input g "echo \"now \$(nproc)\""
expect g "^now 1"
refused "may use 1 to 2 vCPUs, not 3" dom vcpu-set g 3
refused "names no CPU of this machine" dom vcpu-pin g all 9
dom sched g --weight 512
is "weight" "$(dom sched g --json | json weight)" 512

# A cap: the hundredth parts of a CPU that a spinning guest gets in 10 s.
cpu_ns() { dom list g --json | json cpu_time_ns; }
uptime_ms() { cut -d " " -f 1 /proc/uptime | tr -d . | sed "s/\$/0/"; }
part() {
    from=$(cpu_ns) at=$(uptime_ms)
    sleep 10
    echo $((($(cpu_ns) - from) / 10000 / ($(uptime_ms) - at)))
}
input g "while :; do :; done & echo \"spin\"ning"
expect g "^spinning"
whole=$(part)
dom sched g --cap 20
capped=$(part)
dom sched g --cap 0
input g "kill \$!"
echo "a spinning guest has $whole % of a CPU, and $capped % with a cap of 20 %"
[ $whole -ge 60 ] && [ $capped -ge 15 ] && [ $capped -le 25 ] || fail "the cap is not obeyed"

# What a shell shows when Tab is pressed.
words=$(COMPLETE=bash _CLAP_IFS=" " _CLAP_COMPLETE_INDEX=2 dom -- dom pause "")
echo "completions: $words"
case " $words " in *" Domain-0 "*) ;; *) fail "no names of domains" ;; esac
case " $words " in *" g "*) ;; *) fail "the domain is not among them" ;; esac

# Memory, both ways.
total() { input g "echo \"\$(sed -n \"s/MemTotal: *\([0-9]*\) kB/total $1 \1/p\" /proc/meminfo)\""; expect g "^total $1 "; console | sed -n "s/^total $1 //p"; }
before=$(total a)
dom mem-set g 112 --wait
is "memory" "$(dom list g --json | json memory_mib)" 112
less=$(total b)
dom mem-set g 210M --wait
more=$(total c)
echo "the guest sees $before, $less and $more KiB"
[ $less -lt $((before - 20000)) ] && [ $more -gt $((before + 40000)) ] || fail "the guest does not see it"
refused "may have 224 MiB at most and not 300" dom mem-set g 300
refused "is no amount of memory" dom mem-set g lots
refused "MiB are free; take memory from another domain first" dom mem-set Domain-0 9G
dom mem-set g 160 --wait

dom sysrq g h
expect g "sysrq: HELP"
dom uptime
[ "$(dom uptime g --json | json seconds)" -gt 0 ] || fail "no uptime"

# Figures.
input g "dd if=/dev/zero of=/dev/xvda bs=1M count=4 conv=fsync; echo \"written: \$?\""
expect g "^written: 0"
dom top --batch -n 1 -d 1
# On a whole terminal: the serial line.
dom top -n 2 -d 1 </dev/hvc0 >/dev/hvc0
dom metrics >/run/metrics
grep "^hospes_domain_disk_written_bytes_total{domain=\"g\",id=\"1\",disk=\"xvda\"} 4194304" /run/metrics
grep -q "^hospes_domain_cpu_seconds_total{domain=\"g\"" /run/metrics && grep -q "^# EOF" /run/metrics
refused "is not of the loopback interface" dom metrics --listen 10.9.0.1:9090
dom metrics --listen 127.0.0.1:9090 2>/run/listening &
until_true 5 grep -q serving /run/listening
wget -q -O - http://127.0.0.1:9090/metrics | grep "^hospes_domains 2"
kill $!

# A reboot keeps its name, and what was attached and set.
dom block-attach g /srv/b.img,raw,xvdb,r
dom reboot g --wait
is "id" "$(dom domid g)" 2

console() { tr -d "\r" <"/var/log/xen/console/guest-$1.log"; }
expect g "guest up" 90
is "disks" "$(dom block-list g --json | json vdev | tr "\n" " ")" "xvda xvdb "
is "weight" "$(dom sched g --json | json weight)" 512
is "preferred" "$(dom vcpu-list g --json | json soft_affinity | tr "\n" " ")" "1 all "
dom config g | tee /run/again.cfg

# Off: its watcher takes away what is left of it.
dom shutdown g --wait
refused "there is no domain \`g\`" dom domid g
until_true 5 sh -c "! cat /sys/block/loop*/loop/backing_file" || fail "loop devices stay"
[ -z "$(ls /sys/bus/xen-backend/devices; ls /sys/class/net/xenbr0/brif; ls /run/hospes/*.json 2>/dev/null)" ] || fail "something stays"

# What dom config shows can be started; a crash does what on_crash says.
: >/var/log/xen/console/guest-g.log
dom create /run/again.cfg
expect g "guest up" 90
input g "echo c >/proc/sysrq-trigger"
until_true 30 sh -c "! dom domid g" || fail "on_crash was not heeded"
until_true 5 sh -c "! cat /sys/block/loop*/loop/backing_file" || fail "loop devices stay after a crash"

# Its watcher is killed; it is destroyed all the same, with all it has.
: >/var/log/xen/console/guest-g.log
dom create /run/again.cfg
expect g "guest up" 90
for pid in /proc/[0-9]*; do case $(tr "\0" " " <$pid/cmdline) in *" watch "*) kill -9 ${pid#/proc/} ;; esac; done
dom destroy g
until_true 5 sh -c "! cat /sys/block/loop*/loop/backing_file" || fail "loop devices stay after destroy"

# rename-restart: what is left of it can be looked at, and the new one has its name, its uuid and its disk.
write_cfg twice "memory = 96" "extra = \"console=hvc0\"" "disk = [ \"/srv/a.img,raw,xvda,w\" ]" "on_reboot = \"rename-restart\""
dom create /run/twice.cfg
expect twice "guest up" 90
sleep 6
uuid=$(dom list twice --json | json uuid)
dom reboot twice --wait
is "what is left" "$(dom list twice-1 --json | json state)" rebooting
is "uuid" "$(dom list twice --json | json uuid)" "$uuid"
is "disks" "$(dom block-list --json | json vdev)" xvda
[ "$(dom list twice-1 --json | json uuid)" != "$uuid" ] || fail "both have the same uuid"
dom destroy twice-1
dom destroy twice
[ -z "$(ls /sys/bus/xen-backend/devices; ls /run/hospes/*.json 2>/dev/null; xenstore-list /vm)" ] || fail "something stays of rename-restart"

# Interrupted while it is made, wherever that is: nothing stays.
: >/run/hospes/lock
before=$(free_pages)
for tenths in 1 3 6 10 15 20 30; do
    dom create /run/again.cfg >/dev/null 2>/run/err &
    usleep ${tenths}00000
    kill -INT $! 2>/dev/null || true
    if wait $!; then dom destroy g; else grep -q "interrupted; the domain was not made" /run/err || fail "it says: $(cat /run/err)"; fi
    ! dom domid g 2>/dev/null || fail "it is there after all"
    [ -z "$(ls /sys/bus/xen-backend/devices; ls /sys/class/net/xenbr0/brif; ls /run/hospes/*.json /sys/block/loop*/loop/backing_file 2>/dev/null; xenstore-list /vm)" ] ||
        fail "something stays after $tenths tenths of a second"
done
until_true 10 eval "[ \$(free_pages) -ge $((before - 4)) ]" || fail "$before pages were free, and now $(free_pages)"

# Autostart.
mkdir -p /etc/hospes/auto
sed "s/^name.*/name = \"auto\"/; /^uuid/d; /^disk/,/^]/d; /^vif/,/^]/d" /run/again.cfg >/etc/hospes/auto/10-auto.cfg
echo "name = \"broken\"" >/etc/hospes/auto/20-broken.cfg
! dom autostart 2>/run/err || fail "a broken configuration is no error"
cat /run/err
grep -q "20-broken.cfg: there is no \`kernel\` in it" /run/err || fail "it does not say what is broken"
rm /etc/hospes/auto/20-broken.cfg
dom autostart | grep "domain \`auto\` runs already"
expect auto "guest up" 90
dom shutdown --all --wait
is "domains" "$(dom list --json | json id | tr "\n" " ")" "0 "

dom bridge-delete xenbr0
dom man | grep -c "^.SS"
dom completion bash | grep -c COMPLETE
now=$(free_pages)
echo "free pages: $free before, $now after"
audit'

# What a terminal at the serial line got: another screen, three tables on it, and the screen from before.
screen=$(tr -d '\r' <"$SCENARIO_TEMP/serial" | sed -n $'/\e\\[?1049h/,/\e\\[?1049l/p')
has "dom top's screen" "$screen" $'\e\\[\\?1049h\e\\[\\?25l\e\\[H2 CPUs, .* 2 domains\e\\[K$'
equal "tables" "$(grep -c $'^NAME .*STATE .*READ/s' <<<"$screen")" 3
equal "rows of the guest" "$(grep -cE $'^g +1 +[a-z]+ .*\e\\[K$' <<<"$screen")" 3
has "its end" "$screen" $'\e\\[J\e\\[\\?25h\e\\[\\?1049l'
