//! The image's build id: what the linker made of its contents, in an ELF note.

/// The id's bytes; empty where the linker made none (and in host builds).
pub fn build_id() -> &'static [u8] {
    #[cfg(target_os = "none")]
    {
        unsafe extern "C" {
            static build_id_start: u8;
            static build_id_end: u8;
        }
        // SAFETY: the linker script puts both around a section of constants.
        let note = unsafe {
            let (start, end) = (&raw const build_id_start, &raw const build_id_end);
            core::slice::from_raw_parts(start, end.offset_from(start).unsigned_abs())
        };
        id_of(note)
    }
    #[cfg(not(target_os = "none"))]
    &[]
}

/// The id in a GNU note: lengths of name and id, the type, then name and id.
#[cfg_attr(not(target_os = "none"), allow(dead_code, reason = "host builds have no note"))]
fn id_of(note: &[u8]) -> &[u8] {
    const NAME: &[u8; 4] = b"GNU\0";
    const HEAD: usize = 12;
    let word = |i: usize| note.get(i..i + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes) as usize;
    if note.get(HEAD..HEAD + NAME.len()) != Some(NAME) || word(0) != NAME.len() {
        return &[];
    }
    let start = HEAD + NAME.len();
    note.get(start..start.saturating_add(word(4))).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes() {
        let good = [4u8, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, b'G', b'N', b'U', 0, 7, 8, 9, 0];
        assert_eq!(id_of(&good), [7, 8, 9]);
        assert_eq!(id_of(&good[..18]), [0u8; 0]);
        assert_eq!(id_of(&[]), [0u8; 0]);
    }
}
