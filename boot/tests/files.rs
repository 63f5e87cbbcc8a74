//! Kernel files: every format is unpacked, every kind of damage is named.

mod common;

use boot::bzimage::{FileError, locate};
use boot::payload::{Format, UnpackError};
use common::elf::{ElfBuilder, bzimage};
use proptest::prelude::*;

const GZIP: &[u8] = include_bytes!("fixtures/linux.elf.gz");
const XZ: &[u8] = include_bytes!("fixtures/linux.elf.xz");
const ZSTD: &[u8] = include_bytes!("fixtures/linux.elf.zst");
const LZ4: &[u8] = include_bytes!("fixtures/linux.elf.lz4");
const LIMIT: usize = 1 << 20;

fn elf() -> Vec<u8> {
    ElfBuilder::linux().file()
}

/// The payload as the kernel's build makes it: gzip has its size at the end anyway.
fn payload(format: Format, stream: &[u8], size: usize) -> Vec<u8> {
    let mut payload = stream.to_vec();
    if format != Format::Gzip {
        payload.extend((size as u32).to_le_bytes());
    }
    payload
}

const ALL: [(Format, &[u8]); 4] = [(Format::Gzip, GZIP), (Format::Xz, XZ), (Format::Zstd, ZSTD), (Format::Lz4, LZ4)];

#[test]
fn every_format_unpacks_to_the_same_file() {
    let elf = elf();
    for (format, stream) in ALL {
        let file = bzimage(&payload(format, stream, elf.len()));
        let found = locate(&file).unwrap();
        assert_eq!((found.format(), found.unpacked_len()), (format, elf.len()));
        assert_eq!(found.as_plain(), None);
        assert!(found.unpack(LIMIT).unwrap_or_else(|e| panic!("{format:?}: {e}")) == elf, "{format:?}");
    }
}

#[test]
fn plain_files_are_taken_as_they_are() {
    let elf = elf();
    let found = locate(&elf).unwrap();
    assert_eq!(found.format(), Format::Plain);
    assert_eq!(found.as_plain(), Some(&elf[..]));
    assert!(found.unpack(LIMIT).unwrap() == elf);
    let found = locate(GZIP).unwrap();
    assert_eq!(found.format(), Format::Gzip);
    assert!(found.unpack(LIMIT).unwrap() == elf);
    let file = bzimage(&elf);
    assert!(locate(&file).unwrap().unpack(LIMIT).unwrap() == elf);
}

#[test]
fn several_lz4_blocks_and_streams() {
    // Legacy blocks hold 8 MiB; more than one, and a second stream behind the first.
    let data: Vec<u8> = (0..(9u32 << 20)).map(|n| (n / 1000) as u8).collect();
    let mut stream = 0x184c_2102u32.to_le_bytes().to_vec();
    for chunk in data.chunks(8 << 20) {
        let mut block = vec![0; lz4_flex::block::get_maximum_output_size(chunk.len())];
        let len = lz4_flex::block::compress_into(chunk, &mut block).unwrap();
        stream.extend((len as u32).to_le_bytes());
        stream.extend(&block[..len]);
    }
    stream.extend(LZ4);
    let expected = [data, elf()].concat();
    let file = bzimage(&payload(Format::Lz4, &stream, expected.len()));
    assert!(locate(&file).unwrap().unpack(32 << 20).unwrap() == expected);
}

#[test]
fn gzip_headers_with_all_optional_fields() {
    let body = &GZIP[10..];
    let mut file = vec![0x1f, 0x8b, 8, 2 | 4 | 8 | 16, 0, 0, 0, 0, 2, 3];
    file.extend([3, 0, b'a', b'b', b'c']);
    file.extend(b"name\0comment\0");
    file.extend([0x12, 0x34]);
    file.extend(body);
    assert!(locate(&file).unwrap().unpack(LIMIT).unwrap() == elf());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What another implementation has compressed: data of few symbols, of runs and of repetitions.
    #[test]
    fn zstd_of_any_data(
        pieces in prop::collection::vec((prop::collection::vec(0u8..200, 1..40), 1usize..2000), 0..60),
        level in any::<bool>(),
    ) {
        use ruzstd::encoding::{CompressionLevel, compress_to_vec};
        let data: Vec<u8> = pieces.into_iter().flat_map(|(piece, times)| piece.repeat(times)).collect();
        let level = if level { CompressionLevel::Fastest } else { CompressionLevel::Uncompressed };
        let stream = compress_to_vec(&data[..], level);
        let file = bzimage(&payload(Format::Zstd, &stream, data.len()));
        let unpacked = locate(&file).unwrap().unpack(16 << 20);
        prop_assert!(unpacked.as_deref() == Ok(&data[..]), "{:?}", unpacked.map(|_| "other data"));
    }
}

#[test]
fn a_stream_that_is_longer_or_shorter_than_announced_is_refused() {
    let len = elf().len();
    for (format, stream) in ALL {
        for size in [len - 1, len + 1, len / 2, 0, 2 * len] {
            let mut payload = payload(format, stream, size);
            if format == Format::Gzip {
                let end = payload.len() - 4;
                payload[end..].copy_from_slice(&(size as u32).to_le_bytes());
            }
            let file = bzimage(&payload);
            let error = locate(&file).unwrap().unpack(LIMIT).unwrap_err();
            assert!(matches!(error, UnpackError::WrongLength { .. }), "{format:?} {size}: {error:?}");
            assert!(error.to_string().contains(&size.to_string()), "{error}");
        }
    }
}

#[test]
fn a_payload_larger_than_the_limit_is_refused_before_anything_is_allocated() {
    let file = bzimage(&payload(Format::Xz, XZ, 0xffff_fff0));
    let error = locate(&file).unwrap().unpack(LIMIT).unwrap_err();
    assert_eq!(error, UnpackError::TooLarge { size: 0xffff_fff0, limit: LIMIT as u64 });
    let file = bzimage(&payload(Format::Xz, XZ, 1000));
    let error = locate(&file).unwrap().unpack_into(&mut [0; 999]).unwrap_err();
    assert_eq!(error, UnpackError::BufferSize { have: 999, wanted: 1000 });
}

/// Formats with a checksum detect any damage that matters; LZ4 has none, so there it must merely not panic.
#[test]
fn damage_in_the_payload_is_found() {
    let elf = elf();
    for (format, stream) in ALL {
        for at in (0..stream.len()).step_by(61).chain(stream.len() - 12..stream.len()) {
            let mut damaged = stream.to_vec();
            damaged[at] ^= 0x10;
            let file = bzimage(&payload(format, &damaged, elf.len()));
            let Ok(found) = locate(&file) else { continue };
            match found.unpack(LIMIT) {
                Ok(_) if format == Format::Lz4 => {}
                // In a header's time, or in the bits that fill up the last byte.
                Ok(out) if format == Format::Gzip && out == elf => {}
                Ok(_) => panic!("{format:?}: damage at {at} not found"),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Several damaged bytes, a wrong size: never a panic, and never more than there is room for.
    #[test]
    fn damage_never_panics(
        which in 0usize..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        near_start in any::<bool>(),
        size in 1usize..200_000,
    ) {
        let (format, stream) = ALL[which];
        let mut damaged = stream.to_vec();
        for (at, value) in changes {
            let at = at.index(if near_start { 300 } else { stream.len() });
            damaged[at] = value;
        }
        let file = bzimage(&payload(format, &damaged, size));
        if let Ok(found) = locate(&file) {
            let _ = found.unpack(LIMIT);
        }
    }
}

#[test]
fn truncated_streams_are_found() {
    let elf = elf();
    for (format, stream) in ALL {
        for len in (8..stream.len()).step_by(97).chain([stream.len() - 1]) {
            let file = bzimage(&payload(format, &stream[..len], elf.len()));
            if let Ok(found) = locate(&file) {
                assert!(found.unpack(LIMIT).is_err(), "{format:?} cut to {len}");
            }
        }
    }
}

#[test]
fn data_behind_the_stream_is_refused() {
    let elf = elf();
    for (format, stream) in [(Format::Xz, XZ), (Format::Zstd, ZSTD), (Format::Lz4, LZ4)] {
        let stream = [stream, b"junk, more than a few bytes of it"].concat();
        let file = bzimage(&payload(format, &stream, elf.len()));
        assert!(locate(&file).unwrap().unpack(LIMIT).is_err(), "{format:?}");
    }
}

#[test]
fn truncated_files_are_named_as_such() {
    let file = bzimage(&payload(Format::Xz, XZ, elf().len()));
    for len in [0x206, 0x207, 0x24b, 0x24f, 0x800, file.len() - 400] {
        let error = locate(&file[..len]).unwrap_err();
        assert!(matches!(error, FileError::Truncated { have, .. } if have == len as u64), "{len}: {error:?}");
        assert!(error.to_string().contains("truncated"));
    }
    assert_eq!(locate(&[]).unwrap_err(), FileError::Empty);
}

#[test]
fn other_files_are_named_for_what_they_are() {
    let text = |error: FileError| error.to_string();
    assert!(text(locate(b"#!/bin/sh\necho no kernel\n").unwrap_err()).contains("not a kernel image"));
    // An initrd in XZ is no kernel.
    assert!(matches!(locate(XZ).unwrap_err(), FileError::NotAKernel(_)));
    for (magic, name) in [(&b"BZh91AY&SY"[..], "bzip2"), (b"\x5d\x00\x00\x00\x04", "LZMA"), (b"\x89LZO\0\r\n", "LZO")] {
        let error = locate(&bzimage(magic)).map(|_| ()).unwrap_err();
        assert_eq!(error, FileError::UnsupportedCompression(name));
        assert!(text(error).contains(name));
    }
    assert_eq!(locate(&bzimage(b"gibberish")).unwrap_err(), FileError::UnknownPayload(*b"gibb"));
    let mut old = bzimage(&payload(Format::Xz, XZ, 5));
    old[0x206] = 7;
    assert_eq!(
        text(locate(&old).unwrap_err()).split(';').next().unwrap(),
        "the bzImage speaks boot protocol 2.07, and 2.08 or newer is needed to find its payload"
    );
}
