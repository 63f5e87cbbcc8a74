//! The store's wire protocol and the ring it runs over (io/xs_wire.h).
#![allow(missing_docs)]

/// Bytes of each direction.
pub const RING_SIZE: usize = 1024;
/// Most bytes behind one [`Header`].
pub const PAYLOAD_MAX: usize = 4096;
pub const ABS_PATH_MAX: usize = 3072;
pub const REL_PATH_MAX: usize = 2048;

pub const SERVER_FEATURE_RECONNECTION: u32 = 1;
pub const SERVER_FEATURE_ERROR: u32 = 2;
/// `connection` in the steady state.
pub const CONNECTED: u32 = 0;
pub const RECONNECT: u32 = 1;

/// Kinds of messages (`xsd_sockmsg_type`).
pub mod msg {
    #![allow(missing_docs)]
    pub const CONTROL: u32 = 0;
    pub const DIRECTORY: u32 = 1;
    pub const READ: u32 = 2;
    pub const GET_PERMS: u32 = 3;
    pub const WATCH: u32 = 4;
    pub const UNWATCH: u32 = 5;
    pub const TRANSACTION_START: u32 = 6;
    pub const TRANSACTION_END: u32 = 7;
    pub const INTRODUCE: u32 = 8;
    pub const RELEASE: u32 = 9;
    pub const GET_DOMAIN_PATH: u32 = 10;
    pub const WRITE: u32 = 11;
    pub const MKDIR: u32 = 12;
    pub const RM: u32 = 13;
    pub const SET_PERMS: u32 = 14;
    pub const WATCH_EVENT: u32 = 15;
    pub const ERROR: u32 = 16;
    pub const IS_DOMAIN_INTRODUCED: u32 = 17;
    pub const RESUME: u32 = 18;
    pub const SET_TARGET: u32 = 19;
    pub const RESET_WATCHES: u32 = 21;
    pub const DIRECTORY_PART: u32 = 22;
}

abi_struct! {
    /// What each message begins with (`xsd_sockmsg`); `len` bytes follow. Errors come as their names.
    pub struct Header { pub kind: u32 = 0, pub req_id: u32 = 4, pub tx_id: u32 = 8, pub len: u32 = 12, } size 16;
}

/// The page shared between a domain and the store (`xenstore_domain_interface`). Indices run freely; an offset is
/// index modulo [`RING_SIZE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
pub struct DomainInterface {
    pub req: [u8; RING_SIZE],
    pub rsp: [u8; RING_SIZE],
    pub req_cons: u32,
    pub req_prod: u32,
    pub rsp_cons: u32,
    pub rsp_prod: u32,
    pub server_features: u32,
    pub connection: u32,
    pub error: u32,
}
abi_layout!(DomainInterface, 2076, req @ 0, rsp @ 1024, req_cons @ 2048, req_prod @ 2052, rsp_cons @ 2056, rsp_prod @ 2060,
    server_features @ 2064, connection @ 2068, error @ 2072);
