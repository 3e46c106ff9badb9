//! The instructions that call and jump, as far as return addresses on a stack can be checked by them.

#[cfg(target_arch = "x86_64")]
const CALL_REL32: u8 = 0xe8;

/// Returns the function that the direct call before that return address calls.
#[cfg(target_arch = "x86_64")]
pub(super) fn callee(return_address: u64, code: &std::ops::Range<u64>) -> Option<u64> {
    let start = return_address.checked_sub(6).filter(|start| code.contains(start))?;
    // SAFETY: within the code of the module that this function is in, which is mapped as long as this can be called.
    let call = unsafe { std::ptr::read_unaligned(start as *const [u8; 6]) };
    let offset = i32::from_le_bytes([call[2], call[3], call[4], call[5]]);
    let place = return_address.wrapping_add_signed(i64::from(offset));
    match call {
        [_, CALL_REL32, ..] => code.contains(&place).then_some(place),
        _ => None,
    }
}

/// Returns whether the instruction before that address is a call, direct or not.
#[cfg(target_arch = "x86_64")]
pub(super) fn follows_call(return_address: u64, code: &std::ops::Range<u64>) -> bool {
    /// The longest call through a pointer: two bytes, one for the index, four for the distance.
    const LONGEST: usize = 7;
    const CALL_INDIRECT: u8 = 0xff;
    let Some(start) = return_address.checked_sub(LONGEST as u64).filter(|start| code.contains(start)) else {
        return false;
    };
    // SAFETY: within the code of the module that this function is in, which is mapped as long as this can be called.
    let bytes = unsafe { std::ptr::read_unaligned(start as *const [u8; LONGEST]) };
    // ModRM: two bits of the mode, three that say "call", three of the register. (Intel's manual, volume 2, 2.1.3 and
    // CALL.)
    let length = |modrm: u8, index: u8| match (modrm >> 6, modrm & 7) {
        (0b11, _) => 2,
        (0b00, 0b101) => 6,
        (0b00, 0b100) => {
            if index & 7 == 0b101 {
                7
            } else {
                3
            }
        }
        (0b00, _) => 2,
        (mode, base) => 2 + usize::from(base == 0b100) + if mode == 0b01 { 1 } else { 4 },
    };
    let is_indirect = |at: usize| {
        let call = &bytes[at..];
        let index = call.get(2).copied().unwrap_or_default();
        call[0] == CALL_INDIRECT && call[1] >> 3 & 7 == 2 && length(call[1], index) == call.len()
    };
    bytes[LONGEST - 5] == CALL_REL32 || (0..LONGEST - 1).any(is_indirect)
}

#[cfg(target_arch = "aarch64")]
pub(super) fn callee(return_address: u64, code: &std::ops::Range<u64>) -> Option<u64> {
    let start = return_address.checked_sub(4).filter(|start| code.contains(start))?;
    // SAFETY: within the code of the module that this function is in, which is mapped as long as this can be called.
    let call = unsafe { std::ptr::read_unaligned(start as *const u32) };
    // BL: 26 bits, a signed number of instructions.
    let offset = i64::from((call << 6) as i32 >> 6) * 4;
    let target = start.wrapping_add_signed(offset);
    (call >> 26 == 0b100101 && code.contains(&target)).then_some(target)
}

/// Returns whether the instruction before that address is a call, direct or not.
#[cfg(target_arch = "aarch64")]
pub(super) fn follows_call(return_address: u64, code: &std::ops::Range<u64>) -> bool {
    let Some(start) = return_address.checked_sub(4).filter(|start| code.contains(start)) else { return false };
    // SAFETY: within the code of the module that this function is in, which is mapped as long as this can be called.
    let call = unsafe { std::ptr::read_unaligned(start as *const u32) };
    // BL, and BLR with or without a check of the pointer's signature.
    call >> 26 == 0b100101 || call & 0xfeff_f000 == 0xd63f_0000
}

/// Returns where the direct jumps in that code lead, with or without a condition. Bytes that merely look like a jump may be
/// among them.
#[cfg(target_arch = "x86_64")]
pub(super) fn jumps(code: &[u8], start: u64) -> impl Iterator<Item = u64> {
    const JUMP_REL32: u8 = 0xe9;
    code.windows(5).enumerate().filter_map(move |(at, bytes)| {
        let [opcode, offset @ ..] = <[u8; 5]>::try_from(bytes).ok()?;
        let is_conditional = opcode & 0xf0 == 0x80 && at > 0 && code[at - 1] == 0x0f;
        let next = start + at as u64 + 5;
        (opcode == JUMP_REL32 || is_conditional).then(|| next.wrapping_add_signed(i32::from_le_bytes(offset).into()))
    })
}

/// Returns where the direct jumps in that code lead.
#[cfg(target_arch = "aarch64")]
pub(super) fn jumps(code: &[u8], start: u64) -> impl Iterator<Item = u64> {
    code.chunks_exact(4).enumerate().filter_map(move |(at, bytes)| {
        let jump = u32::from_le_bytes(bytes.try_into().ok()?);
        // B: 26 bits, a signed number of instructions.
        let offset = i64::from((jump << 6) as i32 >> 6) * 4;
        (jump >> 26 == 0b000101).then(|| (start + at as u64 * 4).wrapping_add_signed(offset))
    })
}
