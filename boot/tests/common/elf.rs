//! Synthetic kernels.

/// Makes an ELF file with the given pieces.
pub struct ElfBuilder {
    pub class: u8,
    pub machine: u16,
    pub kind: u16,
    /// (p_vaddr, p_paddr, bytes, memsz)
    pub loads: Vec<(u64, u64, Vec<u8>, u64)>,
    /// Contents of a PT_NOTE.
    pub notes: Vec<u8>,
    /// Put the notes into an SHT_NOTE section instead.
    pub notes_in_section: bool,
    /// An empty section of this name.
    pub section: Option<&'static str>,
}

pub const VIRT_BASE: u64 = 0xffff_ffff_8000_0000;
pub const INIT_P2M: u64 = 0x80_0000_0000;

/// One note of Xen's.
pub fn note(kind: u32, desc: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    note.extend(4u32.to_le_bytes());
    note.extend((desc.len() as u32).to_le_bytes());
    note.extend(kind.to_le_bytes());
    note.extend(b"Xen\0");
    note.extend(desc);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

/// A note of one 64-bit number.
pub fn number(kind: u32, value: u64) -> Vec<u8> {
    note(kind, &value.to_le_bytes())
}

/// The notes of a kernel like Linux: entry, base, xen-3.0, p2m and initrd by PFN.
pub fn linux_notes(entry: u64) -> Vec<u8> {
    [
        number(1, entry),
        number(3, VIRT_BASE),
        number(4, 0),
        note(5, b"xen-3.0\0"),
        note(6, b"linux\0"),
        note(9, b"yes\0"),
        note(10, b"!writable_page_tables|pae_pgdir_above_4gb\0"),
        note(13, &[1u64.to_le_bytes(), 1u64.to_le_bytes()].concat()),
        number(15, INIT_P2M),
        number(16, 1),
        note(17, &0x8801u32.to_le_bytes()),
    ]
    .concat()
}

/// Bytes that look a little like code: near calls and jumps, forwards and backwards, which the x86 filter of XZ is
/// about, between bytes of other kinds.
pub fn code(len: usize) -> Vec<u8> {
    let mut code = Vec::new();
    let mut seed = 12345u32;
    while code.len() < len {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let n = seed >> 16;
        match n % 5 {
            0 => code.extend([0xe8, n as u8, (n >> 8) as u8, 0, 0]),
            1 => code.extend([0xe9, n as u8, (n >> 8) as u8, 0xff, 0xff]),
            2 => code.extend([0x48, 0x89, 0xe5, 0xe8, 0xe8, n as u8, 0, 0, 0]),
            3 => code.extend([0x0f, 0x0b, 0x66, 0x90]),
            _ => code.extend([0x90; 7]),
        }
    }
    code.truncate(len);
    code
}

impl ElfBuilder {
    /// A kernel like Linux: text at 16 MiB, a segment with p_vaddr 0 behind it, bss.
    pub fn linux() -> Self {
        let text = code(70_000);
        let percpu: Vec<u8> = (0..5000u32).map(|n| (n * 3) as u8).collect();
        let data: Vec<u8> = (0..9000u32).map(|n| (n * 5) as u8).collect();
        let at = 0x100_0000;
        ElfBuilder {
            class: 2,
            machine: 62,
            kind: 2,
            loads: vec![
                (VIRT_BASE + at, at, text, 70_000),
                (0, at + 0x20_0000, percpu, 5000),
                (VIRT_BASE + at + 0x30_0000, at + 0x30_0000, data, 1_234_567),
            ],
            notes: linux_notes(VIRT_BASE + at + 0x40),
            notes_in_section: false,
            section: None,
        }
    }

    /// A small kernel, its image at PFN 1.
    pub fn small(notes: Vec<u8>) -> Self {
        let text = vec![0x90; 4096 + 77];
        ElfBuilder {
            class: 2,
            machine: 62,
            kind: 2,
            loads: vec![(VIRT_BASE + 0x1000, 0x1000, text, 3 * 4096)],
            notes,
            notes_in_section: false,
            section: None,
        }
    }

    pub fn file(&self) -> Vec<u8> {
        let phnum = self.loads.len() + usize::from(!self.notes_in_section);
        let mut body = 64 + phnum * 56;
        let mut headers = Vec::new();
        let mut data = Vec::new();
        let mut header = |kind: u32, vaddr: u64, paddr: u64, bytes: &[u8], memsz: u64| {
            headers.extend(kind.to_le_bytes());
            headers.extend(7u32.to_le_bytes());
            for n in [body as u64, vaddr, paddr, bytes.len() as u64, memsz, 4] {
                headers.extend(n.to_le_bytes());
            }
            data.extend(bytes);
            body += bytes.len();
        };
        for (vaddr, paddr, bytes, memsz) in &self.loads {
            header(1, *vaddr, *paddr, bytes, *memsz);
        }
        if !self.notes_in_section {
            header(4, 0, 0, &self.notes, self.notes.len() as u64);
        }
        // Sections: null, names, and what is asked for.
        let mut names = vec![0u8];
        names.extend(b".names\0");
        let mut sections = vec![(0u32, 0u32, Vec::new())];
        sections.push((1, 3, Vec::new()));
        if self.notes_in_section {
            sections.push((names.len() as u32, 7, self.notes.clone()));
            names.extend(b".notes\0");
        }
        if let Some(name) = self.section {
            sections.push((names.len() as u32, 1, vec![0; 4]));
            names.extend(name.as_bytes());
            names.push(0);
        }
        sections[1].2 = names;
        let mut table = Vec::new();
        for (name, kind, bytes) in &sections {
            table.extend(name.to_le_bytes());
            table.extend(kind.to_le_bytes());
            for n in [0, 0, body as u64, bytes.len() as u64] {
                table.extend(n.to_le_bytes());
            }
            table.extend([0; 8]);
            table.extend(4u64.to_le_bytes());
            table.extend([0; 8]);
            data.extend(bytes);
            body += bytes.len();
        }
        let mut file = vec![0x7f, b'E', b'L', b'F', self.class, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        file.extend(self.kind.to_le_bytes());
        file.extend(self.machine.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        file.extend(0x1000u64.to_le_bytes()); // e_entry: of no interest
        file.extend(64u64.to_le_bytes());
        file.extend((body as u64).to_le_bytes());
        file.extend(0u32.to_le_bytes());
        for n in [64, 56, phnum as u16, 64, sections.len() as u16, 1] {
            file.extend(n.to_le_bytes());
        }
        [file, headers, data, table].concat()
    }
}

/// Wraps a payload (with its trailing size already) into a bzImage.
pub fn bzimage(payload: &[u8]) -> Vec<u8> {
    let sectors = 3;
    let offset = 100;
    let mut file = vec![0u8; (sectors + 1) * 512 + offset];
    file[0x1f1] = sectors as u8;
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
    file[0x248..0x24c].copy_from_slice(&(offset as u32).to_le_bytes());
    file[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    file.extend(payload);
    file.extend([0xee; 333]); // the rest of the decompressor
    file
}
