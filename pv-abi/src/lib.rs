//! What guest and hypervisor agree on.
#![no_std]
