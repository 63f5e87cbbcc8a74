//! Numbers that must not be mixed up: frames, addresses, domains, vCPUs, ports.

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Bytes of a page.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

macro_rules! id {
    ($($(#[$m:meta])* $name:ident($t:ty);)*) => {$(
        $(#[$m])*
        #[repr(transparent)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
        pub struct $name(pub $t);
        impl core::fmt::LowerHex for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result { core::fmt::LowerHex::fmt(&self.0, f) }
        }
        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result { core::fmt::Display::fmt(&self.0, f) }
        }
    )*};
}

id! {
    /// A machine frame: which page of the machine's memory.
    Mfn(u64);
    /// A pseudo-physical frame: what a guest numbers its own pages with.
    Pfn(u64);
    /// A machine address, bytes.
    MachineAddr(u64);
    /// A virtual address a guest named: an allegation.
    GuestVirt(u64);
    /// A domain.
    DomId(u16);
    /// A vCPU of a domain.
    VcpuId(u32);
    /// An event-channel port.
    EvtchnPort(u32);
    /// An entry of a grant table.
    GrantRef(u32);
}

impl Mfn {
    /// No frame.
    pub const INVALID: Mfn = Mfn(u64::MAX);

    /// Its first byte; `None` when that is beyond 2^64.
    pub const fn to_addr(self) -> Option<MachineAddr> {
        if self.0 >> (64 - PAGE_SHIFT) != 0 { None } else { Some(MachineAddr(self.0 << PAGE_SHIFT)) }
    }

    /// The frame that holds `addr`.
    pub const fn containing(addr: MachineAddr) -> Mfn {
        Mfn(addr.0 >> PAGE_SHIFT)
    }
}

/// A pointer a guest passed: it proves nothing but its type.
#[repr(transparent)]
#[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
pub struct GuestHandle<T>(u64, core::marker::PhantomData<T>);

impl<T> Clone for GuestHandle<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for GuestHandle<T> {}
impl<T> core::fmt::Debug for GuestHandle<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
impl<T> PartialEq for GuestHandle<T> {
    fn eq(&self, o: &Self) -> bool {
        self.0 == o.0
    }
}
impl<T> Eq for GuestHandle<T> {}

impl<T> GuestHandle<T> {
    /// A handle to `addr`.
    pub const fn new(addr: u64) -> Self {
        GuestHandle(addr, core::marker::PhantomData)
    }
    /// The address it names.
    pub const fn addr(self) -> u64 {
        self.0
    }
    /// Whether it is the null pointer.
    pub const fn is_null(self) -> bool {
        self.0 == 0
    }
    /// The handle of element `n` behind it; wraps like the address it is (the access check refuses what does).
    pub const fn offset(self, n: u64) -> Self {
        GuestHandle(self.0.wrapping_add(n.wrapping_mul(core::mem::size_of::<T>() as u64)), core::marker::PhantomData)
    }
    /// The same address as another type.
    pub const fn cast<U>(self) -> GuestHandle<U> {
        GuestHandle(self.0, core::marker::PhantomData)
    }
}

/// Domain ids with a meaning (xen/xen.h `DOMID_*`).
#[allow(missing_docs)]
impl DomId {
    pub const DOM0: DomId = DomId(0);
    pub const FIRST_RESERVED: DomId = DomId(0x7ff0);
    pub const SELF: DomId = DomId(0x7ff0);
    pub const IO: DomId = DomId(0x7ff1);
    pub const XEN: DomId = DomId(0x7ff2);
    pub const COW: DomId = DomId(0x7ff3);
    pub const INVALID: DomId = DomId(0x7ff4);
    pub const IDLE: DomId = DomId(0x7fff);
}
