//! Reading a file, plain or compressed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};
use zstd::Decoder;

const BUFFER_BYTES: usize = 1 << 20;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What tells a file from all others: the first 32 hex digits of the SHA-256 of its bytes as they lie on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The idempotency key of a block of this file.
    pub fn block_key(&self, block: u64, block_size: usize) -> String {
        format!("{}-{block}-{block_size}", self.0)
    }

    /// The idempotency key of some lines of a block of this file.
    pub fn part_key(&self, block: u64, block_size: usize, lines: &[u8]) -> String {
        format!("{}-{}", self.block_key(block, block_size), first_digits(Sha256::digest(lines).as_slice()))
    }
}

/// Reads the first `length` bytes of a file for their fingerprint.
///
/// # Errors
/// The file cannot be read.
pub fn fingerprint(path: &Path, length: u64) -> io::Result<Fingerprint> {
    let mut file = File::open(path)?.take(length);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    Ok(Fingerprint(first_digits(hash.finalize().as_slice())))
}

/// The first 32 hex digits of a hash.
fn first_digits(hash: &[u8]) -> String {
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The lines in `file`, decompressed where its first bytes say that it is gzip or zstd.
///
/// # Errors
/// The file cannot be read.
pub fn open(file: impl Read + Send + 'static) -> io::Result<Box<dyn BufRead + Send>> {
    let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
    let start = file.fill_buf()?;
    if start.starts_with(&GZIP_MAGIC) {
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(file))));
    }
    if start.starts_with(&ZSTD_MAGIC) {
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, Decoder::with_buffer(file)?)));
    }
    Ok(Box::new(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn contents(bytes: Vec<u8>) -> String {
        let mut text = String::new();
        open(io::Cursor::new(bytes)).expect("opened").read_to_string(&mut text).expect("text");
        text
    }

    #[test]
    fn compression_is_told_by_content() {
        let gzip = |text: &str| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(text.as_bytes()).expect("compressed");
            encoder.finish().expect("compressed")
        };
        assert_eq!(contents(b"{}\n".to_vec()), "{}\n");
        assert_eq!(contents(Vec::new()), "");
        assert_eq!(contents([gzip("{}\n"), gzip("[]\n")].concat()), "{}\n[]\n");
        let zstd = |text: &str| zstd::encode_all(text.as_bytes(), 1).expect("compressed");
        assert_eq!(contents([zstd("{}\n"), zstd("[]\n")].concat()), "{}\n[]\n");
    }

    #[test]
    fn a_fingerprint_is_that_of_the_bytes() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(b"abc").expect("written");
        let key = fingerprint(file.path(), u64::MAX).expect("read").block_key(3, 1024);
        assert_eq!(key, "ba7816bf8f01cfea414140de5dae2223-3-1024");
    }
}
