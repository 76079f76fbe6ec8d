// SPDX-License-Identifier: GPL-2.0

//! One large file, in one direction, over TCP. The receiving end compares the bytes, and both ends
//! compare the checksum.
//!
//! The requesting end sends a request: direction, seed, length and rate, eight bytes each,
//! little-endian. The data follows, from the sending end; then, from the answering end, a receipt.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::{control::Control, gap::Gap, pattern::Pattern};

const BUFFER: usize = 64 * 1024;

/// Number of bytes per write if there is a rate.
const BLOCK: usize = 8 * 1024;

/// The direction of the data, from the requesting end's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Upload,
    Download,
}

/// The parameters that the requesting end sends before the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub direction: Direction,
    pub seed: u64,
    /// Number of bytes of data.
    pub length: u64,
    /// Maximum rate in bytes per second; 0 for no limit.
    pub rate: u64,
}

impl Request {
    const BYTES: usize = 32;

    fn encode(&self) -> [u8; Self::BYTES] {
        let direction = match self.direction {
            Direction::Upload => 0,
            Direction::Download => 1,
        };
        encode([direction, self.seed, self.length, self.rate])
    }

    fn decode(bytes: [u8; Self::BYTES]) -> io::Result<Self> {
        let [direction, seed, length, rate] = decode(bytes);
        let direction = match direction {
            0 => Direction::Upload,
            1 => Direction::Download,
            other => {
                let message = format!("invalid direction: {other}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        };
        Ok(Self {
            direction,
            seed,
            length,
            rate,
        })
    }
}

/// The report of the answering end after the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Receipt {
    /// Number of bytes that were sent, or that arrived.
    length: u64,
    /// The offset of the first wrong byte.
    wrong: Option<u64>,
    /// CRC-32C.
    checksum: u32,
}

impl Receipt {
    const BYTES: usize = 24;

    fn encode(&self) -> [u8; Self::BYTES] {
        let wrong = self.wrong.unwrap_or(u64::MAX);
        encode([self.length, wrong, self.checksum.into()])
    }

    fn decode(bytes: [u8; Self::BYTES]) -> Self {
        let [length, wrong, checksum] = decode(bytes);
        Self {
            length,
            wrong: (wrong != u64::MAX).then_some(wrong),
            checksum: checksum as u32,
        }
    }
}

fn encode<const WORDS: usize, const BYTES: usize>(words: [u64; WORDS]) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    for (part, word) in bytes.chunks_exact_mut(8).zip(words) {
        part.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn decode<const WORDS: usize, const BYTES: usize>(bytes: [u8; BYTES]) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (word, part) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = part
            .iter()
            .rev()
            .fold(0, |word, byte| (word << 8) | u64::from(*byte));
    }
    words
}

/// A file that arrived unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Length in bytes.
    pub length: u64,
    /// CRC-32C, which is equal at both ends.
    pub checksum: u32,
    pub took: Duration,
    /// The longest time without progress in sending or receiving.
    pub longest_gap: Duration,
}

/// Moves a file to or from the responder at `address`. `control` counts the parts that were sent or
/// have arrived.
///
/// # Errors
///
/// Fails if the connection fails, if a wrong byte arrives, or if length or checksum differ between
/// the ends.
pub fn run(address: SocketAddr, request: Request, control: &Control) -> io::Result<Transfer> {
    let begin = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(&request.encode())?;
    let (here, longest_gap) = match request.direction {
        Direction::Upload => give(&mut stream, request, control)?,
        Direction::Download => take(&mut stream, request, control)?,
    };
    let mut bytes = [0; Receipt::BYTES];
    stream.read_exact(&mut bytes)?;
    let there = Receipt::decode(bytes);
    if let Some(offset) = here.wrong.or(there.wrong) {
        return Err(io::Error::other(format!(
            "the byte at {offset} arrived changed"
        )));
    }
    if here != there {
        return Err(io::Error::other(format!(
            "{} bytes with checksum {:#010x} here, {} bytes with {:#010x} there",
            here.length, here.checksum, there.length, there.checksum
        )));
    }
    Ok(Transfer {
        length: here.length,
        checksum: here.checksum,
        took: begin.elapsed(),
        longest_gap,
    })
}

/// Answers one request. Returns the number of bytes of data.
///
/// # Errors
///
/// Fails if the connection fails or if the request is invalid.
pub fn serve(mut stream: TcpStream) -> io::Result<u64> {
    let mut bytes = [0; Request::BYTES];
    stream.read_exact(&mut bytes)?;
    let request = Request::decode(bytes)?;
    // The requesting end watches the progress.
    let control = Control::default();
    let (receipt, _) = match request.direction {
        Direction::Upload => take(&mut stream, request, &control)?,
        Direction::Download => give(&mut stream, request, &control)?,
    };
    stream.write_all(&receipt.encode())?;
    Ok(receipt.length)
}

fn give(
    stream: &mut TcpStream,
    request: Request,
    control: &Control,
) -> io::Result<(Receipt, Duration)> {
    let pattern = Pattern::new(request.seed);
    let mut buffer = vec![0; BUFFER];
    let mut gap = Gap::start();
    let (mut length, mut checksum) = (0, 0);
    let block = match request.rate {
        0 => BUFFER,
        _ => BLOCK,
    };
    let begin = Instant::now();
    while length < request.length {
        if let Some(milliseconds) = (length * 1000).checked_div(request.rate) {
            let due = begin + Duration::from_millis(milliseconds);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let part = (request.length - length).min(block as u64) as usize;
        let data = &mut buffer[..part];
        pattern.fill(length, data);
        checksum = crc32c::crc32c_append(checksum, data);
        stream.write_all(data)?;
        gap.arrival();
        control.arrival();
        length += part as u64;
    }
    let receipt = Receipt {
        length,
        wrong: None,
        checksum,
    };
    Ok((receipt, gap.longest()))
}

fn take(
    stream: &mut TcpStream,
    request: Request,
    control: &Control,
) -> io::Result<(Receipt, Duration)> {
    let pattern = Pattern::new(request.seed);
    let mut buffer = vec![0; BUFFER];
    let mut gap = Gap::start();
    let (mut length, mut wrong, mut checksum) = (0, None, 0);
    while length < request.length {
        let part = (request.length - length).min(BUFFER as u64) as usize;
        let data = match stream.read(&mut buffer[..part])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            part => &buffer[..part],
        };
        gap.arrival();
        control.arrival();
        wrong = wrong.or_else(|| pattern.first_difference(length, data));
        checksum = crc32c::crc32c_append(checksum, data);
        length += data.len() as u64;
    }
    let receipt = Receipt {
        length,
        wrong,
        checksum,
    };
    Ok((receipt, gap.longest()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn request(direction: Direction) -> Request {
        Request {
            direction,
            seed: 77,
            length: 300_001,
            rate: 0,
        }
    }

    fn against(
        request: Request,
        behave: impl FnOnce(TcpStream) -> io::Result<u64> + Send + 'static,
    ) -> io::Result<Transfer> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let far = thread::spawn(move || behave(listener.accept()?.0));
        let result = run(address, request, &Control::default());
        // The peer may return an error after a disconnect.
        let _ = far.join();
        result
    }

    #[test]
    fn both_directions_arrive_with_the_same_checksum() {
        let up = against(request(Direction::Upload), serve).unwrap();
        let down = against(request(Direction::Download), serve).unwrap();
        assert_eq!(up.length, 300_001);
        assert_eq!((up.length, up.checksum), (down.length, down.checksum));
    }

    #[test]
    fn both_ends_limit_the_rate() {
        for direction in [Direction::Upload, Direction::Download] {
            let request = Request {
                rate: 1_000_000,
                ..request(direction)
            };
            let transfer = against(request, serve).unwrap();
            let least = Duration::from_millis(280);
            assert!(transfer.took > least, "{direction:?}: {:?}", transfer.took);
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_data() {
        let mut data = vec![0; 300_001];
        Pattern::new(77).fill(0, &mut data);
        let up = against(request(Direction::Upload), serve).unwrap();
        assert_eq!(up.checksum, crc32c::crc32c(&data));
    }

    #[test]
    fn a_changed_byte_is_detected() {
        let error = against(request(Direction::Download), |mut stream| {
            stream.read_exact(&mut [0; Request::BYTES])?;
            let mut data = vec![0; 300_001];
            Pattern::new(77).fill(0, &mut data);
            data[250_000] ^= 0x80;
            stream.write_all(&data)?;
            let receipt = Receipt {
                length: 300_001,
                wrong: None,
                checksum: crc32c::crc32c(&data),
            };
            stream.write_all(&receipt.encode())?;
            Ok(0)
        });
        assert!(error.unwrap_err().to_string().contains("byte at 250000 "));
    }

    #[test]
    fn an_error_of_the_peer_is_reported() {
        for (receipt, text) in [
            ((300_001, Some(5), 0), "byte at 5 "),
            ((300_000, None, 0), "300000 bytes"),
        ] {
            let error = against(request(Direction::Upload), move |mut stream| {
                let mut data = vec![0; Request::BYTES + 300_001];
                stream.read_exact(&mut data)?;
                let (length, wrong, checksum) = receipt;
                let receipt = Receipt {
                    length,
                    wrong,
                    checksum,
                };
                stream.write_all(&receipt.encode())?;
                Ok(0)
            });
            let error = error.unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn invalid_requests_are_rejected() {
        assert!(Request::decode(encode([2, 0, 0, 0])).is_err());
        let sensible = request(Direction::Download);
        assert_eq!(Request::decode(sensible.encode()).unwrap(), sensible);
    }
}
