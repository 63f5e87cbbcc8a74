//! Damaging a good sample.

use super::Rng;

/// Damages `data` in one to eight ways; `others` are samples to splice from (of the same kind, or not).
pub fn mutate(rng: &mut Rng, data: &mut Vec<u8>, others: &[&[u8]]) {
    for _ in 0..1 + rng.below(3) * rng.below(4) {
        one(rng, data, others);
    }
}

fn one(rng: &mut Rng, data: &mut Vec<u8>, others: &[&[u8]]) {
    // Headers are at the start: half of all changes are made there.
    let within = if rng.one_in(2) { data.len() } else { data.len().min(300) };
    let at = rng.below(within);
    let len = rng.below(64).min(data.len() - at);
    match rng.below(10) {
        0 => flip(rng, data, at),
        1 => set(rng, data, at, 1),
        2 => set(rng, data, at & !1, 2),
        3 => set(rng, data, at & !3, 4),
        4 => set(rng, data, at & !7, 8),
        5 => data.truncate(at),
        6 => {
            data.drain(at..at + len);
        }
        7 => {
            let piece = data[at..at + len].to_vec();
            let to = rng.below(data.len() + 1);
            data.splice(to..to, piece);
        }
        8 => {
            let piece = rng.bytes(32);
            data.splice(at..at, piece);
        }
        _ if others.is_empty() => flip(rng, data, at),
        _ => {
            let other = *rng.pick(others);
            let from = rng.below(other.len());
            let piece = &other[from..];
            let piece = if rng.one_in(2) { piece } else { &piece[..piece.len().min(64)] };
            let end = (at + piece.len()).min(data.len());
            data.splice(at..end, piece.iter().copied());
        }
    }
}

fn flip(rng: &mut Rng, data: &mut [u8], at: usize) {
    if let Some(byte) = data.get_mut(at) {
        *byte ^= 1 << rng.below(8);
    }
}

/// Writes a number that is likely to be wrong: an extreme one, or one near the sample's own length.
fn set(rng: &mut Rng, data: &mut [u8], at: usize, size: usize) {
    let number = if rng.one_in(3) {
        (data.len() as u64).wrapping_add(rng.below(9) as u64).wrapping_sub(4)
    } else {
        rng.number()
    };
    if let Some(to) = data.get_mut(at..at + size) {
        to.copy_from_slice(&number.to_le_bytes()[..size]);
    }
}
