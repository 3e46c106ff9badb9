//! Return addresses that are signed (`paciasp` on aarch64), in the tables for unwinding.
//!
//! A function that signs its return address says so in its table, by an instruction (`DW_CFA_AARCH64_negate_ra_state`)
//! that `framehop` takes for an error. It would then use the frame pointer, which does not say where the caller's frame
//! ends. heeler strips signatures anyway, so it can do without the instruction.

use gimli::{EndianSlice, LittleEndian, Reader as _};

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

const NEGATE_SIGNED: u8 = 0x2d;
const NOTHING: u8 = 0;

/// Returns the tables without that instruction, or `None` if it is not there.
pub(super) fn without_signing(frames: &[u8]) -> Option<Vec<u8>> {
    let mut found = Vec::new();
    let mut rest = EndianSlice::new(frames, LittleEndian);
    // An unreadable record ends it, because there may be anything beyond the tables.
    while let Ok(Some(())) = record(frames, &mut rest, &mut found) {}
    if found.is_empty() {
        return None;
    }
    let mut copy = frames.to_vec();
    found.into_iter().for_each(|at| copy[at] = NOTHING);
    Some(copy)
}

/// Splits the next record from the others, and returns its bytes after the length.
fn split<'a>(rest: &mut Bytes<'a>) -> gimli::Result<Option<Bytes<'a>>> {
    match rest.read_u32()? {
        // The end, or a length of 64 bits, which no linker needs.
        0 | u32::MAX => Ok(None),
        length => rest.split(length as usize).map(Some),
    }
}

/// Notes where the instruction is in the next record. Returns `None` at the end.
fn record(frames: &[u8], rest: &mut Bytes<'_>, found: &mut Vec<usize>) -> gimli::Result<Option<()>> {
    let section = EndianSlice::new(frames, LittleEndian);
    let Some(mut record) = split(rest)? else { return Ok(None) };
    let at = record.offset_from(section);
    let back = record.read_u32()? as usize;
    let width = if back == 0 {
        common(&mut record)?
    } else {
        // The record that it shares its beginning with, by the distance from here.
        let mut start = section;
        start.skip(at.checked_sub(back).ok_or(gimli::Error::OffsetOutOfBounds(0))?)?;
        let Some(mut shared) = split(&mut start)? else { return Ok(None) };
        let width = if shared.read_u32()? == 0 { common(&mut shared)? } else { return Ok(Some(())) };
        record.skip(2 * width)?;
        let extra = record.read_uleb128()? as usize;
        record.skip(extra)?;
        width
    };
    while !record.is_empty() {
        let at = record.offset_from(section);
        match record.read_u8()? {
            NEGATE_SIGNED => found.push(at),
            instruction => {
                if !skip_operands(&mut record, instruction, width)? {
                    break;
                }
            }
        }
    }
    Ok(Some(()))
}

/// Reads what precedes the instructions of a shared record. Returns how many bytes an address has in the others.
fn common(record: &mut Bytes<'_>) -> gimli::Result<usize> {
    let version = record.read_u8()?;
    let augmentation = record.read_null_terminated_slice()?;
    record.read_uleb128()?;
    record.read_sleb128()?;
    if version == 1 {
        record.read_u8()?;
    } else {
        record.read_uleb128()?;
    }
    let Some((b'z', letters)) = augmentation.slice().split_first() else { return Ok(8) };
    let length = record.read_uleb128()? as usize;
    let mut data = record.split(length)?;
    let mut width = 8;
    for letter in letters {
        match letter {
            b'R' => width = width_of(data.read_u8()?),
            b'L' => data.skip(1)?,
            b'P' => {
                let width = width_of(data.read_u8()?);
                data.skip(width)?;
            }
            _ => {}
        }
    }
    Ok(width)
}

/// Returns how many bytes an address has in that encoding.
fn width_of(encoding: u8) -> usize {
    match encoding & 7 {
        2 => 2,
        3 => 4,
        _ => 8,
    }
}

/// Returns false for an unknown instruction.
fn skip_operands(record: &mut Bytes<'_>, instruction: u8, width: usize) -> gimli::Result<bool> {
    let (bytes, numbers, has_block) = match instruction {
        0x40..=0x7f | 0xc0..=0xff | 0x00 | 0x0a | 0x0b => (0, 0, false),
        0x80..=0xbf => (0, 1, false),
        0x01 => (width, 0, false),
        0x02 => (1, 0, false),
        0x03 => (2, 0, false),
        0x04 => (4, 0, false),
        0x05 | 0x09 | 0x0c | 0x11 | 0x12 | 0x14 | 0x15 => (0, 2, false),
        0x06..=0x08 | 0x0d | 0x0e | 0x13 | 0x2e => (0, 1, false),
        0x0f => (0, 0, true),
        0x10 | 0x16 => (0, 1, true),
        _ => return Ok(false),
    };
    record.skip(bytes)?;
    for _ in 0..numbers {
        record.skip_leb128()?;
    }
    if has_block {
        let length = record.read_uleb128()? as usize;
        record.skip(length)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a shared record, and a function's record with these instructions.
    fn frames(instructions: &[u8]) -> Vec<u8> {
        let mut shared = vec![0, 0, 0, 0, 1, b'z', b'R', 0, 4, 0x78, 30, 1, 0x1b, 0x0c, 31, 0];
        shared.resize(shared.len().next_multiple_of(4), 0);
        let mut frames = (shared.len() as u32).to_le_bytes().to_vec();
        frames.extend(&shared);
        let back = frames.len() as u32 + 4;
        let mut function = back.to_le_bytes().to_vec();
        // Where it is and how long: bytes that aren't instructions.
        function.extend([NEGATE_SIGNED; 8]);
        function.push(0);
        function.extend(instructions);
        frames.extend((function.len() as u32).to_le_bytes());
        frames.extend(function);
        frames.extend([0; 4]);
        // What is behind the tables.
        frames.extend([NEGATE_SIGNED; 16]);
        frames
    }

    /// Guards: the instruction is removed wherever it is, and nothing that only looks like it.
    #[test]
    fn pointer_signing_instructions_are_removed() {
        // advance, sign, def_cfa_offset 45, offset x29 45, a block of two, advance1 45, restore_state, sign.
        let signed =
            [0x41, 0x2d, 0x0e, 0x2d, 0x9d, 0x2d, 0x10, 30, 2, 0x2d, 0x2d, 0x02, 0x2d, 0x0b, 0x2d, 0x05, 30, 0x2d];
        let plain = [0x41, 0, 0x0e, 0x2d, 0x9d, 0x2d, 0x10, 30, 2, 0x2d, 0x2d, 0x02, 0x2d, 0x0b, 0, 0x05, 30, 0x2d];
        assert_eq!(without_signing(&frames(&signed)).unwrap(), frames(&plain));
        assert!(without_signing(&frames(&plain)).is_none());
    }

    /// Guards: tables that are cut or make no sense are left as they are, as far as they cannot be read.
    #[test]
    fn unreadable_tables_are_left_alone() {
        let whole = frames(&[0x41, 0x2d, 0x41]);
        for length in 0..whole.len() {
            let _ = without_signing(&whole[..length]);
            let mut damaged = whole.clone();
            damaged[length] ^= 0xff;
            let _ = without_signing(&damaged);
        }
        assert!(without_signing(&[]).is_none());
        assert!(
            without_signing(&frames(&[0x3f, 0x2d])).is_none(),
            "what follows an unknown instruction may be its operand"
        );
    }
}
