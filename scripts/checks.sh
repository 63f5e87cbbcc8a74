# shellcheck shell=bash
# `test` and `bench`.

# checks_run LONG: every kind of test, each with its own closing lines; fails if one of them did.
checks_run() {
    local long=${1:+--long} failed=()
    cd "$ROOT"
    export CARGO_TARGET_DIR=$TARGET_DIR
    # For the test programs, which start machines of their own.
    export HOSPES_IMAGE=$DIST/hospes HOSPES_XEN=$DIST/xen HOSPES_VMLINUZ=$CACHE/kernels/bookworm/boot/vmlinuz
    export HOSPES_PROFILE=$OPT_PROFILE
    ln -sf "$(basename "$CACHE"/kernels/bookworm/boot/vmlinuz-*)" "$HOSPES_VMLINUZ"

    # The scenarios' kernels, now, so that no test's time limit meets a slow mirror.
    kernel_debian trixie
    kernel_debian newest
    newer_qemu
    # The test kernels' transcripts hold what this emulator does where CPUs differ (RF in pushed flags, INT1, INVD).
    export HOSPES_QEMU=$NEWER_QEMU

    check "shell scripts" bash -n qemu-run.sh scripts/*.sh tests/scenarios/*.sh
    check "format" cargo fmt --all --check
    check "clippy, host" cargo clippy -q --workspace --all-targets
    check "clippy, bare metal" cargo clippy -q --target x86_64-unknown-none -p hypervisor -p guests
    check "host tests" cargo test -q --workspace
    [ -z "$long" ] || check "fuzzers and model checks, long" checks_fuzz
    # shellcheck disable=SC2086 # nothing or one word
    check "PV test kernels" cargo run -q --release -p harness -- run $long
    check "PV test kernels, CPU with SMAP" checks_cpu max 'SMEP on, SMAP on' "${CHECKS_ANY_CPU[@]}" break_read_guest
    # shellcheck disable=SC2086
    check "mutants" cargo run -q --release -p harness -- mutants $long
    check "PV test kernels, Intel CPU" checks_cpu max,vendor=GenuineIntel 'XPTI on' "${CHECKS_INTEL[@]}"
    # shellcheck disable=SC2086
    check "scenarios" tests/scenarios/run.sh $long

    [ ${#failed[@]} -eq 0 ] || checks_recall
    [ ${#failed[@]} -eq 0 ] || die "failed: $(printf '%s; ' "${failed[@]}" | sed 's/; $//')"
    say "all tests passed"
}

# check WHAT COMMAND...: runs it; what failed is remembered in `failed`, its output in a file, and the rest still runs.
check() {
    local what=$1 start=$SECONDS
    shift
    say "$what"
    mkdir -p "$DIST/logs"
    if "$@" 2>&1 | tee "$DIST/logs/check.log"; then
        say "$what: passed ($((SECONDS - start)) s)"
    else
        say "$what: FAILED ($((SECONDS - start)) s)"
        failed+=("$what")
        mv "$DIST/logs/check.log" "$DIST/logs/failed-${#failed[@]}.log"
    fi
}

# checks_recall: the last lines of what failed, at the end of the log, where people look first.
checks_recall() {
    local i
    for i in "${!failed[@]}"; do
        say "${failed[i]} FAILED; its last lines ($DIST/logs/failed-$((i + 1)).log has all):"
        tail -n 40 "$DIST/logs/failed-$((i + 1)).log"
    done
}

# Kernels whose transcripts are the same on every CPU. (Those left out show what CPUs differ in: the RF flag of pushed
# frames, INT1, INVD, features.)
CHECKS_ANY_CPU=(page_types mmu_update update_va mmuext ptwr ac syscall event_frames msrs ioports evtchn grants multicall
    memory smp fpu break_run_guest)

# And those that need not be on a CPU of AMD's kind.
CHECKS_INTEL=(mmu_update update_va mmuext ptwr event_frames ioports evtchn grants multicall memory smp fpu child xpti
    break_panic break_stack break_hang)

# checks_cpu MODEL EXPECTED KERNEL...: these kernels on another CPU of a newer QEMU, on Hospes, whose log must say that.
checks_cpu() {
    local model=$1 expected=$2
    shift 2
    # shellcheck disable=SC2046 # names of kernels
    env -u HOSPES_XEN cargo run -q --release -p harness -- run --cpu "$model" --expect "$expected" \
        $(printf -- '--only %s ' "$@")
}

# checks_fuzz: every fuzzer of the host tests for two minutes, from a seed of its own, and twenty times as many orders in each
# model; optimised, with debug assertions.
checks_fuzz() {
    HOSPES_FUZZ_SECONDS=120 cargo test -q --no-fail-fast --profile checked -p boot -p hypervisor -p guest-tools fuzz_ -- \
        --nocapture &&
        HOSPES_MODEL_RUNS=20 cargo test -q --profile checked -p hypervisor --lib -- --nocapture model:: races::
}

checks_bench() {
    cd "$ROOT"
    newer_qemu
    export CARGO_TARGET_DIR=$TARGET_DIR HOSPES_IMAGE=$DIST/hospes HOSPES_XEN=$DIST/xen HOSPES_QEMU=$NEWER_QEMU
    cargo run -q --release -p harness -- bench
}
