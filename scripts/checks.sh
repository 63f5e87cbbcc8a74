# shellcheck shell=bash
# `test` and `bench`.

checks_run() { die "no tests yet"; }
checks_bench() { die "no bench yet"; }
