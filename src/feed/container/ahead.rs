//! Decompression on a thread of its own, ahead of the parser, so that the two overlap.
//!
//! ```text
//!  caller's reader ─▶ Ahead ──chunks──▶ decoder on its thread
//!          parser  ◀─ Ahead ◀──texts─── (and used buffers, for more chunks)
//! ```
//!
//! In: compressed bytes and a decoder for them. Out: what the decoder gives. Promise: at most two chunks and three texts are in
//! circulation; the caller's reader is only ever used on the caller's thread, and where in the text it is read depends on the bytes alone, not
//! on time; the decoder's thread waits for nothing but the two channels, so it ends as soon as nobody reads any more.

use std::io::{self, BufRead, Read};
use std::mem::take;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use super::layer::{BUFFER_BYTES, Layer};

/// What is compressed to less is not worth a thread.
pub const CHUNK_BYTES: usize = 64 << 10;

/// A decoder, and one buffer each for what it does next and for what the parser has in hand.
const TEXTS: usize = 3;

/// Compressed bytes in chunks that are full but for the last one, however they arrive.
pub struct Chunks<'r> {
    input: Layer<'r>,
    is_over: bool,
    /// Why the input ended, until what came before it has been used up.
    failure: Option<io::Error>,
}

impl<'r> Chunks<'r> {
    pub fn new(input: Layer<'r>) -> Self {
        Self {
            input,
            is_over: false,
            failure: None,
        }
    }

    /// The next chunk, in `buffer`; an empty one at the end.
    pub fn next(&mut self, mut buffer: Vec<u8>) -> io::Result<Vec<u8>> {
        buffer.resize(CHUNK_BYTES, 0);
        let mut filled = 0;
        while filled < CHUNK_BYTES && !self.is_over {
            match self.read(&mut buffer[filled..]) {
                Ok(bytes) => filled += bytes,
                Err(error) if filled == 0 => return Err(error),
                Err(error) => {
                    self.failure = Some(error);
                    break;
                }
            }
        }
        buffer.truncate(filled);
        Ok(buffer)
    }
}

impl Read for Chunks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let bytes = self.input.read(buffer)?;
        self.is_over = bytes == 0;
        Ok(bytes)
    }
}

/// A reader of what the decoder gives.
pub struct Ahead<'r> {
    input: Chunks<'r>,
    chunks: Sender<io::Result<Vec<u8>>>,
    spares: Sender<Vec<u8>>,
    events: Receiver<Event>,
    thread: Option<JoinHandle<()>>,
    /// What has come of the text, and how much of it has been handed out.
    text: Vec<u8>,
    len: usize,
    taken: usize,
    is_over: bool,
}

/// What the decoder's thread has to say.
enum Event {
    /// It begins the chunk it has got, and wants one more, in this buffer.
    Wants(Vec<u8>),
    /// So many bytes of the buffer are text; none at the end.
    Text(Vec<u8>, usize),
    Failed(io::Error),
}

impl<'r> Ahead<'r> {
    /// Starts the decoder that `decoder` makes, on `first` and what follows it in `input`.
    pub fn start<D: Read>(
        first: Vec<u8>,
        input: Chunks<'r>,
        decoder: impl FnOnce(Compressed) -> io::Result<D> + Send + 'static,
    ) -> io::Result<Self> {
        let (chunks, given) = channel();
        let (spares, empty) = channel();
        let (tell, events) = channel();
        // All but the one that this reader begins with.
        for _ in 1..TEXTS {
            let _ = spares.send(vec![0; BUFFER_BYTES]);
        }
        let _ = tell.send(Event::Wants(Vec::new()));
        let compressed = Compressed {
            chunk: first,
            taken: 0,
            is_over: false,
            given,
            tell: tell.clone(),
        };
        let thread =
            thread::Builder::new()
                .name("decompress".into())
                .spawn(move || match decoder(compressed) {
                    Ok(decoder) => decompress(decoder, empty, tell),
                    Err(error) => drop(tell.send(Event::Failed(error))),
                })?;
        Ok(Self {
            input,
            chunks,
            spares,
            events,
            thread: Some(thread),
            text: vec![0; BUFFER_BYTES],
            len: 0,
            taken: 0,
            is_over: false,
        })
    }

    /// Waits for more text, and gives the decoder what it wants until then. A send can't fail but to a thread that has ended, of which
    /// the next event tells.
    fn refill(&mut self) -> io::Result<()> {
        let _ = self.spares.send(take(&mut self.text));
        (self.taken, self.len) = (0, 0);
        loop {
            match self.events.recv() {
                Ok(Event::Wants(buffer)) => {
                    let _ = self.chunks.send(self.input.next(buffer));
                }
                Ok(Event::Text(text, len)) => {
                    (self.text, self.len) = (text, len);
                    self.is_over = len == 0;
                    return Ok(());
                }
                Ok(Event::Failed(error)) => return Err(error),
                Err(_) => return Err(self.ended()),
            }
        }
    }

    /// A panic of the decoder's is one of its reader's.
    fn ended(&mut self) -> io::Error {
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            resume_unwind(panic);
        }
        io::Error::other("decompression has ended with an error before")
    }
}

impl Read for Ahead<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.len && !self.is_over {
            self.refill()?;
        }
        let bytes = (&self.text[self.taken..self.len]).read(buffer)?;
        self.taken += bytes;
        Ok(bytes)
    }
}

/// Tells all that the decoder gives, until it ends or nobody listens.
fn decompress(mut decoder: impl Read, spares: Receiver<Vec<u8>>, tell: Sender<Event>) {
    for mut buffer in spares {
        let (event, is_last) = match decoder.read(&mut buffer) {
            Ok(bytes) => (Event::Text(buffer, bytes), bytes == 0),
            Err(error) => (Event::Failed(error), true),
        };
        if tell.send(event).is_err() || is_last {
            return;
        }
    }
}

/// The compressed bytes, as the decoder's thread gets them.
pub struct Compressed {
    chunk: Vec<u8>,
    taken: usize,
    is_over: bool,
    given: Receiver<io::Result<Vec<u8>>>,
    tell: Sender<Event>,
}

impl BufRead for Compressed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken == self.chunk.len() && !self.is_over {
            // Nobody sees this error: it comes up only when nobody is there to see it.
            let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
            let used = take(&mut self.chunk);
            self.taken = 0;
            self.tell.send(Event::Wants(used)).map_err(|_| gone())?;
            self.chunk = self.given.recv().map_err(|_| gone())??;
            self.is_over = self.chunk.is_empty();
        }
        Ok(&self.chunk[self.taken..])
    }

    fn consume(&mut self, bytes: usize) {
        self.taken += bytes;
    }
}

impl Read for Compressed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?.read(buffer)?;
        self.consume(bytes);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use super::*;

    fn start<D: Read>(
        input: impl Read + 'static,
        decoder: impl FnOnce(Compressed) -> io::Result<D> + Send + 'static,
    ) -> Ahead<'static> {
        let mut input = Chunks::new(Box::new(input));
        let first = input.next(Vec::new()).unwrap();
        Ahead::start(first, input, decoder).unwrap()
    }

    /// Gives a few bytes at a time.
    struct Drip(Cursor<Vec<u8>>);

    impl Read for Drip {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = buffer.len().min(1_000);
            self.0.read(&mut buffer[..len])
        }
    }

    fn numbers(count: u32) -> Vec<u8> {
        (0..count).flat_map(u32::to_le_bytes).collect()
    }

    #[test]
    fn all_of_it_comes_in_its_order_however_it_arrives() {
        for count in [0, 1, CHUNK_BYTES as u32 / 4, 1_000_000] {
            let bytes = numbers(count);
            let mut read = Vec::new();
            let mut ahead = start(Drip(Cursor::new(bytes.clone())), Ok);
            ahead.read_to_end(&mut read).unwrap();
            assert!(read == bytes, "{count}");
            assert_eq!(ahead.read(&mut [0]).unwrap(), 0);
        }
    }

    #[test]
    fn an_error_comes_after_what_stands_before_it() {
        struct Broken(u64);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                match self.0 {
                    0 => Err(io::ErrorKind::TimedOut.into()),
                    left => {
                        let bytes = buffer.len().min(left as usize);
                        self.0 -= bytes as u64;
                        Ok(bytes)
                    }
                }
            }
        }
        for before in [1, 100_000, 1_000_000] {
            let mut read = Vec::new();
            let mut ahead = start(Broken(before), Ok);
            let error = ahead.read_to_end(&mut read).unwrap_err();
            assert_eq!(
                (read.len() as u64, error.kind()),
                (before, io::ErrorKind::TimedOut)
            );
            assert!(ahead.read(&mut [0]).is_err());
        }
    }

    #[test]
    fn a_decoder_that_can_not_be_made_is_an_error() {
        let make = |_: Compressed| Err::<io::Empty, _>(io::ErrorKind::InvalidData.into());
        let error = start(io::repeat(0), make).read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    #[should_panic = "a mistake in a decoder"]
    fn a_panic_of_the_decoder_is_one_of_its_reader() {
        struct Mistaken;
        impl Read for Mistaken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                panic!("a mistake in a decoder");
            }
        }
        let _ = start(io::repeat(0), |_| Ok(Mistaken)).read(&mut [0]);
    }

    #[test]
    fn the_thread_ends_when_its_reader_is_dropped_wherever_it_is() {
        /// Reads as much as it gives, or ten times as much.
        struct Decoder {
            input: Compressed,
            factor: usize,
            _alive: Arc<()>,
        }
        impl Read for Decoder {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                for _ in 1..self.factor {
                    self.input.read_exact(&mut buffer[..1_000])?;
                }
                self.input.read(buffer)
            }
        }
        for (reads, factor) in [(0, 1), (1, 1), (20, 1), (0, 10_000), (3, 1_000)] {
            let alive = Arc::new(());
            let held = Arc::clone(&alive);
            let mut ahead = start(io::repeat(0), move |input| {
                Ok(Decoder {
                    input,
                    factor,
                    _alive: held,
                })
            });
            for _ in 0..reads {
                assert!(ahead.read(&mut [0; 1_000]).unwrap() > 0);
            }
            drop(ahead);
            let started = Instant::now();
            while Arc::strong_count(&alive) > 1 {
                assert!(started.elapsed() < Duration::from_secs(60), "it goes on");
                thread::yield_now();
            }
        }
    }

    #[test]
    fn where_the_input_is_read_depends_on_the_bytes_alone() {
        struct Counting(Arc<Mutex<u64>>);
        impl Read for Counting {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                *self.0.lock().unwrap() += buffer.len() as u64;
                Ok(buffer.len())
            }
        }
        let read_at = |pause: fn()| {
            let read = Arc::default();
            let mut ahead = start(Counting(Arc::clone(&read)), Ok);
            let mut seen = Vec::new();
            for _ in 0..200 {
                assert_eq!(ahead.read(&mut [0; 5_000]).unwrap().min(1), 1);
                seen.push(*read.lock().unwrap());
                pause();
            }
            seen
        };
        let fast = read_at(|| ());
        // Whatever the decoder could do meanwhile.
        let slow = read_at(|| (0..100).for_each(|_| thread::yield_now()));
        assert_eq!(fast, slow);
        let lead = fast
            .iter()
            .enumerate()
            .map(|(n, read)| read - (n as u64 * 5_000).min(*read));
        assert!(lead.max().unwrap() <= (3 * CHUNK_BYTES + TEXTS * BUFFER_BYTES) as u64);
    }
}
