//! From a loader's modules to a kernel ready to run.
#![no_std]
