//! Whatever bytes a file holds, reading it ends, with blocks or with an error.

use std::io::{Cursor, Write};

use proptest::prelude::*;

use super::*;

const BLOCK_SIZE: usize = 64;

/// Of a plain file, of gzip, of zstd.
const STARTS: &[&[u8]] = &[b"", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"];

fn read(bytes: Vec<u8>) -> Result<Vec<Block>, BlockError> {
    let lines = open(Cursor::new(bytes)).map_err(BlockError::Read)?;
    Blocks::new(lines, BLOCK_SIZE).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("compressed");
    encoder.finish().expect("compressed")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("compressed")
}

fn lines() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..400)
}

/// A compressed file, and a place within it behind the bytes that say how it is compressed.
fn compressed() -> impl Strategy<Value = (Vec<u8>, usize)> {
    let file = prop_oneof![lines().prop_map(|bytes| gzip(&bytes)), lines().prop_map(|bytes| zstd(&bytes))];
    file.prop_flat_map(|file| {
        let places = 4..file.len();
        (Just(file), places)
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_to_their_end(start in prop::sample::select(STARTS), rest in lines()) {
        let Ok(blocks) = read([start, &rest].concat()) else { return Ok(()) };
        for block in blocks {
            prop_assert!(block.bytes.len() <= BLOCK_SIZE || block.line_numbers.len() == 1);
            prop_assert_eq!(block.bytes.iter().filter(|byte| **byte == b'\n').count(), block.line_numbers.len());
        }
    }

    #[test]
    fn a_damaged_file_is_read_to_the_damage((mut file, place) in compressed(), xor in 1..=u8::MAX) {
        file[place] ^= xor;
        let _ = read(file);
    }

    #[test]
    fn a_file_that_was_cut_off_is_an_error((mut file, place) in compressed()) {
        file.truncate(place);
        prop_assert!(matches!(read(file), Err(BlockError::Read(_))));
    }
}
