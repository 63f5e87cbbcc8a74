//! Instructions chosen at boot: what a CPU does not need costs it nothing.
//!
//! A site in the code is a run of NOPs; beside it, in `.alt.code`, stands what belongs there when a [`Feature`] is in
//! use, and `.alt.table` ties the two together. [`apply`] runs once, on the boot CPU, before any other CPU and any guest
//! runs. What may stand in a site must not refer to anything by its own address (no `[rip + x]`, no call or jump out of
//! the site).

/// What sites are for. The numbers are those in [`alternative`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// STAC and CLAC around accesses to guest memory, CLAC on entry.
    Smap = 0,
    /// Page tables without the hypervisor.
    Xpti = 1,
    /// MSR SPEC_CTRL written on entry.
    Ibrs = 2,
    /// Return stack buffer filled on entry.
    Rsb = 3,
    /// VERW on exit.
    Verw = 4,
}

impl Feature {
    /// The feature's bit in what [`apply`] takes, if `on`.
    pub const fn bit(self, on: bool) -> u32 {
        (on as u32) << self as u32
    }
}

/// Assembly of a site: `alternative!(smap, "clac")` is NOPs, or that code where the feature is in use.
macro_rules! alternative {
    (@ smap) => { "0" };
    (@ xpti) => { "1" };
    (@ ibrs) => { "2" };
    (@ rsb) => { "3" };
    (@ verw) => { "4" };
    ($feature:ident, $($code:literal),+ $(,)?) => {
        concat!(
            ".pushsection .alt.code,\"a\"\n771:\n", $($code, "\n",)+ "772:\n.popsection\n",
            "773: .skip 772b - 771b, 0x90\n",
            ".pushsection .alt.table,\"a\"\n.quad 773b, 771b\n.long 772b - 771b, ",
            $crate::arch::patch::alternative!(@ $feature), "\n.popsection\n"
        )
    };
}
pub(crate) use alternative;

/// One row of `.alt.table`.
#[repr(C)]
struct Site {
    at: *mut u8,
    code: *const u8,
    len: u32,
    feature: u32,
}

/// The longest NOPs that all 64-bit CPUs know, by length (SDM vol. 2, NOP).
const NOPS: [&[u8]; 9] = [
    &[0x90],
    &[0x66, 0x90],
    &[0x0f, 0x1f, 0x00],
    &[0x0f, 0x1f, 0x40, 0],
    &[0x0f, 0x1f, 0x44, 0, 0],
    &[0x66, 0x0f, 0x1f, 0x44, 0, 0],
    &[0x0f, 0x1f, 0x80, 0, 0, 0, 0],
    &[0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
    &[0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
];

/// Fills sites that are not in use with as few instructions as there can be: one NOP, or a jump over the rest.
fn fill(site: &mut [u8]) {
    let n = site.len();
    if let Some(nop) = n.checked_sub(1).and_then(|i| NOPS.get(i)) {
        site.copy_from_slice(nop);
    } else if let [jump, distance, rest @ ..] = site
        && let Ok(d) = i8::try_from(rest.len())
    {
        (*jump, *distance) = (0xeb, d as u8);
        rest.fill(0xcc);
    }
}

/// Writes every site: with its code where `chosen` has the bit of its feature, with NOPs elsewhere.
///
/// # Safety
/// Boot CPU, once, before another CPU runs and with interrupts off.
#[cfg(target_os = "none")]
pub unsafe fn apply(chosen: u32) {
    use super::cr;
    unsafe extern "C" {
        static alt_table_start: Site;
        static alt_table_end: Site;
    }
    let start = &raw const alt_table_start;
    let n = ((&raw const alt_table_end) as usize - start as usize) / size_of::<Site>();
    // SAFETY: the linker script brackets the section with these symbols; it holds rows of this shape.
    let sites = unsafe { core::slice::from_raw_parts(start, n) };
    let cr0 = cr::read_cr0();
    // SAFETY: the text is mapped read-only everywhere: write protection is off for these few writes. Sites and their
    // code do not overlap, nobody executes them meanwhile, and CPUID makes this CPU forget what it had fetched.
    unsafe {
        cr::write_cr0(cr0 & !(1 << 16));
        let mut rest = sites;
        while let [s, after @ ..] = rest {
            let mut len = s.len as usize;
            rest = after;
            if chosen >> s.feature & 1 != 0 {
                core::slice::from_raw_parts_mut(s.at, len).copy_from_slice(core::slice::from_raw_parts(s.code, len));
                continue;
            }
            // Neighbours that are not in use either are jumped over together.
            while let [next, after @ ..] = rest
                && next.at == s.at.add(len)
                && chosen >> next.feature & 1 == 0
            {
                len += next.len as usize;
                rest = after;
            }
            fill(core::slice::from_raw_parts_mut(s.at, len));
        }
        cr::write_cr0(cr0);
    }
    super::cpu::cpuid(0, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_sites_are_one_instruction() {
        for n in 1..=9 {
            let mut site = std::vec![0u8; n];
            fill(&mut site);
            assert_eq!(site, NOPS[n - 1]);
        }
        let mut site = [0u8; 40];
        fill(&mut site);
        assert_eq!(site[..2], [0xeb, 38]);
        assert!(site[2..].iter().all(|b| *b == 0xcc));
    }
}
