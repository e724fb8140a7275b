//! Cutting lines into blocks.

use std::io::{self, BufRead, Read};

use super::LineSet;

/// A line longer than this is not a click.
pub(super) const LONGEST_LINE: usize = 16 << 20;

/// The most lines of a block: the service takes so many clicks in one request, and more.
const MOST_LINES: usize = 100_000;

/// Some lines of a file, to be sent together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its place in the file, from 0.
    pub number: u64,
    /// The lines, each ending with a newline; empty ones are left out.
    pub bytes: Vec<u8>,
    /// The number of each line in the file, from 1.
    pub line_numbers: Vec<u64>,
}

impl Block {
    /// The block with those of its lines that are in the set.
    #[must_use]
    pub fn only(self, lines: &LineSet) -> Self {
        if self.line_numbers.iter().all(|line| lines.contains(*line)) {
            return self;
        }
        self.filtered(|_, line| lines.contains(line))
    }

    /// The block with those of its lines that are at these places, ascending.
    #[must_use]
    pub fn at(&self, places: &[usize]) -> Self {
        self.clone().filtered(|place, _| places.binary_search(&place).is_ok())
    }

    fn filtered(self, keeps: impl Fn(usize, u64) -> bool) -> Self {
        let mut kept = Self { number: self.number, bytes: Vec::new(), line_numbers: Vec::new() };
        for (place, (bytes, line)) in self.lines().enumerate() {
            if keeps(place, line) {
                kept.bytes.extend_from_slice(bytes);
                kept.line_numbers.push(line);
            }
        }
        kept
    }

    /// The same lines in blocks of at most that many.
    pub fn split(&self, most_lines: usize) -> Vec<Block> {
        let lines: Vec<_> = self.lines().collect();
        let part = |lines: &[(&[u8], u64)]| {
            let (bytes, line_numbers): (Vec<&[u8]>, Vec<u64>) = lines.iter().copied().unzip();
            Block { number: self.number, bytes: bytes.concat(), line_numbers }
        };
        lines.chunks(most_lines).map(part).collect()
    }

    fn lines(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.bytes.split_inclusive(|byte| *byte == b'\n').zip(self.line_numbers.iter().copied())
    }
}

/// The blocks of a file in order. They depend on nothing but the lines and the block size.
#[derive(Debug)]
pub struct Blocks<R> {
    lines: R,
    block_size: usize,
    next_block: u64,
    lines_read: u64,
    /// The line that no longer fitted into the block before.
    held_back: Vec<u8>,
}

/// Why there is no next block.
#[derive(Debug)]
pub enum BlockError {
    /// The lines cannot be read.
    Read(io::Error),
    /// A line, by its number from 1, is too long.
    LongLine(u64),
}

impl<R: BufRead> Blocks<R> {
    /// Blocks of at most that many bytes and 100,000 lines; a longer line is a block of its own.
    pub fn new(lines: R, block_size: usize) -> Self {
        Self { lines, block_size, next_block: 0, lines_read: 0, held_back: Vec::new() }
    }

    fn next_block(&mut self) -> Result<Option<Block>, BlockError> {
        let mut block = Block { number: self.next_block, bytes: Vec::with_capacity(self.block_size), line_numbers: Vec::new() };
        loop {
            if self.held_back.is_empty() && !self.read_line()? {
                break;
            }
            let fits = block.bytes.len() + self.held_back.len() <= self.block_size && block.line_numbers.len() < MOST_LINES;
            if !fits && !block.bytes.is_empty() {
                break;
            }
            block.bytes.append(&mut self.held_back);
            block.line_numbers.push(self.lines_read);
        }
        self.next_block += 1;
        Ok((!block.bytes.is_empty()).then_some(block))
    }

    /// Reads the next line that is not empty into `held_back`; false at the end.
    fn read_line(&mut self) -> Result<bool, BlockError> {
        loop {
            self.held_back.clear();
            let limit = LONGEST_LINE as u64 + 1;
            let read = self.lines.by_ref().take(limit).read_until(b'\n', &mut self.held_back).map_err(BlockError::Read)?;
            if read == 0 {
                return Ok(false);
            }
            self.lines_read += 1;
            if read > LONGEST_LINE {
                return Err(BlockError::LongLine(self.lines_read));
            }
            if self.held_back.trim_ascii().is_empty() {
                continue;
            }
            if !self.held_back.ends_with(b"\n") {
                self.held_back.push(b'\n');
            }
            return Ok(true);
        }
    }
}

impl<R: BufRead> Iterator for Blocks<R> {
    type Item = Result<Block, BlockError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_block().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(text: &str, block_size: usize) -> Vec<Block> {
        Blocks::new(text.as_bytes(), block_size).collect::<Result<_, _>>().expect("blocks")
    }

    #[test]
    fn blocks_hold_whole_lines_up_to_their_size() {
        let blocks = cut("aaa\n\nbbb\r\n  \nccccccccccc\nd", 8);
        let texts: Vec<_> = blocks.iter().map(|block| String::from_utf8_lossy(&block.bytes).into_owned()).collect();
        assert_eq!(texts, ["aaa\n", "bbb\r\n", "ccccccccccc\n", "d\n"]);
        assert_eq!(blocks.iter().map(|block| block.number).collect::<Vec<_>>(), [0, 1, 2, 3]);
        let numbers: Vec<_> = blocks.into_iter().map(|block| block.line_numbers).collect();
        assert_eq!(numbers, [vec![1], vec![3], vec![5], vec![6]]);
    }

    #[test]
    fn blocks_do_not_hold_more_lines_than_a_request_may_bring() {
        let blocks = cut(&"1\n".repeat(MOST_LINES + 1), 1 << 20);
        assert_eq!(blocks.iter().map(|block| block.line_numbers.len()).collect::<Vec<_>>(), [MOST_LINES, 1]);
    }

    #[test]
    fn a_block_is_cut_down_to_some_of_its_lines() {
        let block = cut("a\n\nb\nc\nd\n", 100).remove(0);
        let lines = |block: &Block| (String::from_utf8_lossy(&block.bytes).into_owned(), block.line_numbers.clone());
        assert_eq!(block.clone().only(&LineSet::all()), block);
        assert_eq!(lines(&block.clone().only(&"1-3,5-".parse().expect("a set"))), ("a\nb\nd\n".to_owned(), vec![1, 3, 5]));
        assert_eq!(lines(&block.at(&[1, 2])), ("b\nc\n".to_owned(), vec![3, 4]));
        let parts: Vec<_> = block.split(3).iter().map(lines).collect();
        assert_eq!(parts, [("a\nb\nc\n".to_owned(), vec![1, 3, 4]), ("d\n".to_owned(), vec![5])]);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let text = format!("{{}}\n{}", "x".repeat(LONGEST_LINE + 1));
        let error = Blocks::new(text.as_bytes(), 1 << 20).find_map(Result::err).expect("refused");
        assert!(matches!(error, BlockError::LongLine(2)), "{error:?}");
    }

    proptest! {
        #[test]
        fn every_line_is_in_one_block(lines in prop::collection::vec("[a-z]{0,9}", 0..40), block_size in 1..40usize) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let blocks = cut(&text, block_size);
            let joined: Vec<u8> = blocks.iter().flat_map(|block| block.bytes.clone()).collect();
            let kept: String = lines.iter().filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect();
            prop_assert_eq!(String::from_utf8_lossy(&joined), kept);
            for block in &blocks {
                prop_assert!(block.bytes.len() <= block_size || block.line_numbers.len() == 1);
                for (line, number) in block.bytes.split_inclusive(|b| *b == b'\n').zip(&block.line_numbers) {
                    prop_assert_eq!(String::from_utf8_lossy(line), format!("{}\n", lines[*number as usize - 1]));
                }
            }
        }
    }
}
