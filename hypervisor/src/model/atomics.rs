//! `core`'s atomics with a point of the model before each operation. Same size, same layout: memory that is not made of
//! them (a page table, a guest's page) can be looked at through them.

use core::sync::atomic as real;
pub use core::sync::atomic::Ordering;

/// As `core`'s.
pub fn fence(order: Ordering) {
    super::point();
    if order == Ordering::SeqCst {
        super::drain();
    }
    real::fence(order);
}

/// A locked instruction: stores before it are seen.
fn locked(at: usize) {
    super::point_of_change(at);
    super::drain();
}

macro_rules! atomic {
    ($name:ident $(<$g:ident>)?, $t:ty, $to:expr, $from:expr) => {
        /// As `core`'s.
        #[repr(transparent)]
        pub struct $name $(<$g>)? (pub(super) real::$name $(<$g>)?);

        #[allow(missing_docs, dead_code)]
        impl $(<$g>)? $name $(<$g>)? {
            pub const fn new(v: $t) -> Self {
                Self(real::$name::new(v))
            }
            fn at(&self) -> usize {
                core::ptr::from_ref(&self.0) as *const u8 as usize
            }
            pub fn load(&self, order: Ordering) -> $t {
                super::point_of_look(self.at());
                #[allow(clippy::redundant_closure_call)]
                match super::forwarded(self.at(), size_of::<$t>()) {
                    Some(v) => ($from)(v),
                    None => self.0.load(order),
                }
            }
            pub fn store(&self, v: $t, order: Ordering) {
                super::point_of_change(self.at());
                #[allow(clippy::redundant_closure_call)]
                if order == Ordering::SeqCst || !super::store(self.at(), size_of::<$t>(), ($to)(v)) {
                    super::drain();
                    self.0.store(v, order);
                }
            }
            pub fn swap(&self, v: $t, order: Ordering) -> $t {
                locked(self.at());
                self.0.swap(v, order)
            }
            pub fn compare_exchange(&self, old: $t, new: $t, ok: Ordering, not: Ordering) -> Result<$t, $t> {
                locked(self.at());
                self.0.compare_exchange(old, new, ok, not)
            }
            pub fn compare_exchange_weak(&self, old: $t, new: $t, ok: Ordering, not: Ordering) -> Result<$t, $t> {
                self.compare_exchange(old, new, ok, not)
            }
        }
    };
}

macro_rules! update {
    ($name:ident, $t:ty: $($op:ident)*) => {
        #[allow(missing_docs, dead_code)]
        impl $name {
            $(pub fn $op(&self, v: $t, order: Ordering) -> $t {
                locked(self.at());
                self.0.$op(v, order)
            })*
            // Not in one go: others may change it between the load and the exchange.
            pub fn fetch_update(&self, ok: Ordering, not: Ordering, mut f: impl FnMut($t) -> Option<$t>) -> Result<$t, $t> {
                let mut old = self.load(not);
                while let Some(new) = f(old) {
                    match self.compare_exchange(old, new, ok, not) {
                        Ok(was) => return Ok(was),
                        Err(now) => old = now,
                    }
                }
                Err(old)
            }
        }
    };
}

atomic!(AtomicBool, bool, u64::from, |v: u64| v != 0);
atomic!(AtomicU8, u8, u64::from, |v: u64| v as u8);
atomic!(AtomicU32, u32, u64::from, |v: u64| v as u32);
atomic!(AtomicU64, u64, |v: u64| v, |v: u64| v);
atomic!(AtomicPtr<T>, *mut T, |v: *mut T| v as u64, |v: u64| v as *mut T);
update!(AtomicBool, bool: fetch_or fetch_and);
update!(AtomicU8, u8: fetch_add fetch_sub fetch_or fetch_and fetch_max);
update!(AtomicU32, u32: fetch_add fetch_sub fetch_or fetch_and fetch_max);
update!(AtomicU64, u64: fetch_add fetch_sub fetch_or fetch_and fetch_max fetch_min);
