//! Compressed kernels: streams that other implementations made, damaged, with their checksums repaired so that the damage
//! is reached; what is unpacked is compared with what another implementation makes of it.

use std::io::{Read, Write};
use std::time::Duration;

use boot::bzimage::locate;
use boot::payload::{Format, UnpackError};
use fuzzing::{Fuzzer, Rng, mutate};

use crate::common::elf::{bzimage, code};

const LIMIT: usize = 1 << 19;
const FIXTURES: [(Format, &[u8]); 4] = [
    (Format::Gzip, include_bytes!("../fixtures/linux.elf.gz")),
    (Format::Xz, include_bytes!("../fixtures/linux.elf.xz")),
    (Format::Zstd, include_bytes!("../fixtures/linux.elf.zst")),
    (Format::Lz4, include_bytes!("../fixtures/linux.elf.lz4")),
];
/// Bytes the fixtures unpack to start so.
const ELF: &[u8] = b"\x7fELF";

/// Data with runs, repetitions, text-like and code-like parts.
fn data(rng: &mut Rng) -> Vec<u8> {
    let mut data = ELF.to_vec();
    for _ in 0..rng.below(12) {
        match rng.below(4) {
            0 => data.extend(rng.bytes(300)),
            1 => data.resize(data.len() + rng.below(3000), rng.bits() as u8),
            2 => data.extend(code(rng.below(2000))),
            _ => {
                let from = rng.below(data.len());
                let piece = data[from..(from + rng.below(400)).min(data.len())].to_vec();
                data.extend(piece);
            }
        }
    }
    data
}

/// CRC-32 of IEEE 802.3, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 != 0 { 0xedb8_8320 } else { 0 })
    })
}

fn compress(rng: &mut Rng, format: Format, data: &[u8]) -> Vec<u8> {
    match format {
        Format::Plain => data.to_vec(),
        Format::Gzip => {
            let body = miniz_oxide::deflate::compress_to_vec(data, rng.below(10) as u8);
            let mut stream = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3];
            stream.extend(body);
            stream.extend(crc32(data).to_le_bytes());
            stream.extend((data.len() as u32).to_le_bytes());
            stream
        }
        Format::Xz => {
            let mut options = lzma_rust2::XzOptions::with_preset(rng.below(4) as u32);
            options.set_check_sum_type(if rng.one_in(4) {
                lzma_rust2::CheckType::None
            } else {
                lzma_rust2::CheckType::Crc32
            });
            options.lzma_options.dict_size = 1 << 16;
            let lc = rng.below(5);
            (options.lzma_options.lc, options.lzma_options.lp) = (lc as u32, rng.below(5 - lc) as u32);
            options.lzma_options.pb = rng.below(5) as u32;
            if rng.one_in(2) {
                options.prepend_pre_filter(lzma_rust2::filter::FilterType::BcjX86, 0);
            }
            if rng.one_in(4) {
                options.set_block_size(std::num::NonZeroU64::new(1 << 12));
            }
            let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
            writer.write_all(data).unwrap();
            writer.finish().unwrap()
        }
        Format::Zstd => {
            use ruzstd::encoding::{CompressionLevel, compress_to_vec};
            let level = if rng.one_in(6) { CompressionLevel::Uncompressed } else { CompressionLevel::Fastest };
            compress_to_vec(data, level)
        }
        Format::Lz4 => {
            let mut stream = 0x184c_2102u32.to_le_bytes().to_vec();
            let mut block = vec![0; lz4_flex::block::get_maximum_output_size(data.len())];
            let len = lz4_flex::block::compress_into(data, &mut block).unwrap();
            stream.extend((len as u32).to_le_bytes());
            stream.extend(&block[..len]);
            stream
        }
    }
}

/// Makes the checksums of an XZ stream's first headers right again, and a gzip trailer's that of `data`.
fn repair(format: Format, stream: &mut [u8]) {
    if format == Format::Xz && stream.len() > 13 {
        let crc = crc32(&stream[6..8]);
        stream[8..12].copy_from_slice(&crc.to_le_bytes());
        let end = 12 + usize::from(stream[12]) * 4;
        if let Some(header) = stream.get(12..end) {
            let crc = crc32(header).to_le_bytes();
            if let Some(to) = stream.get_mut(end..end + 4) {
                to.copy_from_slice(&crc);
            }
        }
    }
}

/// What another implementation makes of the stream.
fn reference(format: Format, stream: &[u8]) -> Option<Vec<u8>> {
    match format {
        Format::Xz => {
            let mut out = Vec::new();
            let reader = lzma_rust2::XzReader::new_mem_limit(stream, false, 1 << 16);
            reader.take(LIMIT as u64 + 1).read_to_end(&mut out).ok().map(|_| out)
        }
        Format::Zstd => {
            let mut out = vec![0; LIMIT + 1];
            let len = ruzstd::decoding::FrameDecoder::new().decode_all(stream, &mut out).ok()?;
            out.truncate(len);
            Some(out)
        }
        _ => None,
    }
}

fn fuzz(name: &str, which: usize, cases: u64) {
    let (format, fixture) = FIXTURES[which];
    // Twice the limit for input and output, the second opinion's window, and what the decoder itself may take.
    let fuzzer = Fuzzer { name, target: super::TARGET, cases, heap: 160 << 20, time: Duration::from_secs(20) };
    fuzzer.run(|rng| {
        let (sample, mut stream) = if rng.one_in(20) {
            (None, fixture.to_vec())
        } else {
            let data = data(rng);
            let stream = compress(rng, format, &data);
            (Some(data), stream)
        };
        let whole = rng.one_in(4);
        if !whole {
            mutate(rng, &mut stream, &[fixture]);
            if rng.one_in(2) {
                repair(format, &mut stream);
            }
        }
        let len = sample.as_ref().map_or(0, Vec::len);
        // The size is the right one, another, or what a decoder that trusts the stream would take.
        let size = match rng.below(8) {
            0 if !whole => rng.number() as u32,
            1 if !whole => rng.below(LIMIT) as u32,
            _ if !whole || sample.is_none() => reference(format, &stream).map_or(len, |out| out.len()) as u32,
            _ => len as u32,
        };
        let mut payload = stream.clone();
        if format == Format::Gzip {
            if let Some(at) = payload.len().checked_sub(4) {
                payload[at..].copy_from_slice(&size.to_le_bytes());
            }
        } else {
            payload.extend(size.to_le_bytes());
        }
        let file = bzimage(&payload);
        let Ok(found) = locate(&file) else {
            assert!(!whole, "a good stream is not recognised");
            return false;
        };
        if found.format() != format {
            return false;
        }
        match found.unpack(LIMIT) {
            Ok(out) => {
                assert_eq!(out.len(), found.unpacked_len());
                if let (true, Some(data)) = (whole, &sample) {
                    assert!(out == *data, "a good stream unpacks to something else");
                }
                if format == Format::Gzip {
                    let at = payload.len() - 8;
                    assert_eq!(payload[at..at + 4], crc32(&out).to_le_bytes(), "another checksum than the stream's");
                }
                if let Some(other) = reference(format, &stream) {
                    assert!(out == other, "another implementation unpacks it otherwise");
                }
                true
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                let ours =
                    sample.is_some() || matches!(error, UnpackError::TooLarge { .. } | UnpackError::WrongLength { .. });
                assert!(!(whole && ours && sample.is_some()), "a good stream is refused: {error}");
                false
            }
        }
    });
}

#[test]
fn fuzz_gzip() {
    fuzz("fuzz_gzip", 0, 1500);
}

#[test]
fn fuzz_xz() {
    fuzz("fuzz_xz", 1, 600);
}

#[test]
fn fuzz_zstd() {
    fuzz("fuzz_zstd", 2, 1500);
}

#[test]
fn fuzz_lz4() {
    fuzz("fuzz_lz4", 3, 1500);
}
