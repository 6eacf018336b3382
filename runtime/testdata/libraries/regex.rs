// Finds all matches of three regular expressions in the input; the output is a checksum,
// as of the guests in C.
use regex::bytes::Regex;

#[no_mangle]
pub extern "C" fn alloc(size: usize) -> *mut u8 {
    Box::leak(vec![0u8; size].into_boxed_slice()).as_mut_ptr()
}

#[no_mangle]
pub unsafe extern "C" fn exec(chunk: *const u8, size: usize) -> u64 {
    let chunk = std::slice::from_raw_parts(chunk, size);
    let head = match chunk[0] {
        0x40..=0x57 => 1,
        0x58 => 2,
        0x59 => 3,
        _ => 5,
    };
    let mut sum = 0u32;
    for expression in [
        r"(\w+)[-_.](\w+)\.(md|go|com|json)\b",
        r"(?i)\b(not|never|no)\s+(\w+)",
        r"`([a-z-]+) --([a-z-]+)[^`]*`",
    ] {
        for m in Regex::new(expression).unwrap().captures_iter(&chunk[head..]) {
            for group in m.iter().flatten() {
                for b in group.as_bytes() {
                    sum = (sum ^ *b as u32).wrapping_mul(16777619);
                }
            }
        }
    }
    let mut output = vec![0x1au8];
    output.extend_from_slice(&sum.to_be_bytes());
    let output = output.leak();
    (output.as_ptr() as u64) << 32 | output.len() as u64
}
