//! The journal of a file that arrives in the pool, as found after a crash.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemill_pool::{JOURNAL_BLOCK_BYTES, Journal};

/// As the header says, its checksum put right.
fn sealed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut sealed = bytes.to_vec();
    let (header, rest) = sealed.split_at_mut_checked(48)?;
    header[..8].copy_from_slice(b"TMPARTS1");
    rest.first_chunk_mut::<4>()?.copy_from_slice(&crc32c::crc32c(header).to_le_bytes());
    Some(sealed)
}

fuzz_target!(|bytes: &[u8]| {
    for bytes in [Some(bytes.to_vec()), sealed(bytes)].into_iter().flatten() {
        let Ok(journal) = Journal::read(&bytes) else { continue };
        assert!(journal.count() as usize <= bytes.len());
        let mut written = Vec::new();
        for number in 0..journal.block_count() {
            let mut block = [0; JOURNAL_BLOCK_BYTES];
            journal.write_block(number, &mut block);
            written.extend_from_slice(&block);
        }
        assert_eq!(Journal::read(&written).as_ref(), Ok(&journal));
        let _ = journal.whole();
    }
});
