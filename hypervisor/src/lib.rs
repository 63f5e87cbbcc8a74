//! The hypervisor, as a library that also builds and tests on the host.
#![cfg_attr(target_os = "none", no_std)]
