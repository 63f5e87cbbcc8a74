//! Indices that guests choose, also under speculation: a bounds check is a branch, and a CPU may run ahead as if it had gone
//! the other way (bounds check bypass). Behind [`get`], it can at worst run ahead with element 0.

/// `index` where it is below `len`, 0 elsewhere, by arithmetic: there is no branch to run past.
#[inline(always)]
pub fn clamp(index: usize, len: usize) -> usize {
    let mask: usize;
    // SAFETY: arithmetic on registers: the borrow of `index - len`, spread over a word.
    unsafe {
        core::arch::asm!(
            "cmp {index}, {len}", "sbb {mask}, {mask}",
            index = in(reg) index, len = in(reg) len, mask = out(reg) mask, options(pure, nomem, nostack)
        );
    }
    index & mask
}

/// Element `index`, if there is one.
#[inline(always)]
pub fn get<T>(slice: &[T], index: usize) -> Option<&T> {
    if index >= slice.len() {
        return None;
    }
    // SAFETY: below the length, and `clamp` leaves it as it is then.
    Some(unsafe { slice.get_unchecked(clamp(index, slice.len())) })
}

/// As [`get`], to change it.
#[inline(always)]
pub fn get_mut<T>(slice: &mut [T], index: usize) -> Option<&mut T> {
    let len = slice.len();
    if index >= len {
        return None;
    }
    // SAFETY: as in `get`.
    Some(unsafe { slice.get_unchecked_mut(clamp(index, len)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_stays_outside_is_zero() {
        for (index, len, want) in
            [(0, 1, 0), (4, 5, 4), (5, 5, 0), (usize::MAX, 5, 0), (0, 0, 0), (3, usize::MAX, 3), (1 << 63, 7, 0)]
        {
            assert_eq!(clamp(index, len), want, "{index} of {len}");
        }
    }

    #[test]
    fn elements_are_those_of_the_slice() {
        let mut a = [10, 11, 12];
        for i in 0..5 {
            assert_eq!(get(&a, i), a.get(i));
        }
        *get_mut(&mut a, 2).unwrap() = 7;
        assert_eq!((a[2], get_mut(&mut a, 3)), (7, None));
        assert_eq!(get::<u8>(&[], 0), None);
    }
}
