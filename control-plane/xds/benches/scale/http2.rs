//! The client's side of one gRPC stream on one HTTP/2 connection, as bytes in and bytes out: no socket, no task. It costs a
//! few comparisons per frame, so that a core of clients can keep a core of server busy. It knows what a gRPC server needs
//! of it and refuses the rest of HTTP/2.

use anyhow::{Result, bail, ensure};

/// What Envoy grants since 1.33: 16 MiB for a stream, 24 MiB for a connection.
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 24 << 20;
/// What HTTP/2 grants before anybody says more.
const FIRST_WINDOW: u32 = 65_535;
const MAX_FRAME: usize = 16_384;
/// The one stream of a connection.
const STREAM: u32 = 1;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

const INITIAL_WINDOW_SIZE: u16 = 4;
const ENABLE_PUSH: u16 = 2;

#[derive(Debug)]
pub(crate) struct Http2 {
    header: Partial<9>,
    /// The frame that is being read.
    frame: Option<Frame>,
    /// The payload of a frame other than DATA.
    control: Vec<u8>,
    grpc: Grpc,
    /// DATA that was read since the windows were last widened.
    consumed: u32,
    /// For the socket.
    pub(crate) out: Vec<u8>,
    /// Messages that no window was granted for yet.
    held: Vec<u8>,
    connection_window: i64,
    stream_window: i64,
    initial_window: i64,
    ended: bool,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    left: usize,
}

/// So many bytes that may come in pieces.
#[derive(Debug)]
struct Partial<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Partial<N> {
    const EMPTY: Self = Self { bytes: [0; N], len: 0 };

    /// Takes what is missing from the front of `input`; all of them once they are there.
    fn fill(&mut self, input: &mut &[u8]) -> Option<[u8; N]> {
        let (taken, rest) = input.split_at(input.len().min(N - self.len));
        self.bytes[self.len..self.len + taken.len()].copy_from_slice(taken);
        self.len += taken.len();
        *input = rest;
        (self.len == N).then(|| {
            self.len = 0;
            self.bytes
        })
    }
}

impl Http2 {
    /// A connection whose request is under way.
    pub(crate) fn open(authority: &str, path: &str) -> Self {
        let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let mut settings = Vec::new();
        for (id, value) in [(ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, STREAM_WINDOW)] {
            settings.extend_from_slice(&id.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        }
        put_frame(SETTINGS, 0, 0, &settings, &mut out);
        put_frame(WINDOW_UPDATE, 0, 0, &(CONNECTION_WINDOW - FIRST_WINDOW).to_be_bytes(), &mut out);
        // HPACK: two entries of the static table, then literals whose names are in it, and one whose name is not.
        let mut headers = vec![0x83, 0x86];
        for (name, value) in [(&[0x04][..], path), (&[0x01], authority), (&[0x0f, 0x10], "application/grpc")] {
            headers.extend_from_slice(name);
            put_literal(value, &mut headers);
        }
        headers.push(0);
        put_literal("te", &mut headers);
        put_literal("trailers", &mut headers);
        put_frame(HEADERS, END_HEADERS, STREAM, &headers, &mut out);
        Self {
            header: Partial::EMPTY,
            frame: None,
            control: Vec::new(),
            grpc: Grpc { header: Partial::EMPTY, left: None, message: Vec::new() },
            consumed: 0,
            out,
            held: Vec::new(),
            connection_window: i64::from(FIRST_WINDOW),
            stream_window: i64::from(FIRST_WINDOW),
            initial_window: i64::from(FIRST_WINDOW),
            ended: false,
        }
    }

    /// Sends a message as soon as the server's windows allow.
    pub(crate) fn send(&mut self, message: &[u8]) {
        self.held.push(0);
        self.held.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.held.extend_from_slice(message);
        self.release();
    }

    /// Whether the server has ended the stream.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Takes what the socket gave and hands over each message that is complete.
    pub(crate) fn feed(&mut self, mut input: &[u8], mut on_message: impl FnMut(&[u8])) -> Result<()> {
        while !input.is_empty() || self.frame.is_some_and(|frame| frame.left == 0) {
            let Some(frame) = &mut self.frame else {
                if let Some([l0, l1, l2, kind, flags, s0, s1, s2, s3]) = self.header.fill(&mut input) {
                    let left = u32::from_be_bytes([0, l0, l1, l2]) as usize;
                    ensure!(flags & PADDED == 0 || !matches!(kind, DATA | HEADERS), "a padded frame");
                    let stream = u32::from_be_bytes([s0, s1, s2, s3]);
                    self.frame = Some(Frame { kind, flags, stream, left });
                }
                continue;
            };
            let (payload, rest) = input.split_at(input.len().min(frame.left));
            input = rest;
            frame.left -= payload.len();
            let whole = *frame;
            if whole.kind == DATA {
                self.grpc.feed(payload, &mut on_message);
                self.consumed += u32::try_from(payload.len())?;
            } else {
                self.control.extend_from_slice(payload);
            }
            if whole.left == 0 {
                self.frame = None;
                self.on_frame(whole)?;
            }
        }
        Ok(())
    }

    fn on_frame(&mut self, Frame { kind, flags, stream, .. }: Frame) -> Result<()> {
        let payload = std::mem::take(&mut self.control);
        match kind {
            DATA if self.consumed > STREAM_WINDOW / 2 => {
                let widened = std::mem::take(&mut self.consumed).to_be_bytes();
                put_frame(WINDOW_UPDATE, 0, 0, &widened, &mut self.out);
                put_frame(WINDOW_UPDATE, 0, STREAM, &widened, &mut self.out);
            }
            SETTINGS if flags & ACK == 0 => {
                for setting in payload.chunks_exact(6) {
                    if u16::from_be_bytes([setting[0], setting[1]]) == INITIAL_WINDOW_SIZE {
                        let size = i64::from(u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]));
                        self.stream_window += size - self.initial_window;
                        self.initial_window = size;
                    }
                }
                put_frame(SETTINGS, ACK, 0, &[], &mut self.out);
                self.release();
            }
            WINDOW_UPDATE if payload.len() == 4 => {
                let more = i64::from(u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]]));
                let window = if stream == STREAM { &mut self.stream_window } else { &mut self.connection_window };
                *window += more;
                self.release();
            }
            PING if flags & ACK == 0 => put_frame(PING, ACK, 0, &payload, &mut self.out),
            RST_STREAM => self.ended = true,
            GOAWAY => {
                let (fixed, debug) = payload.split_at(payload.len().min(8));
                bail!("the server goes away: {:?} {}", fixed.get(4..), String::from_utf8_lossy(debug))
            }
            _ => {}
        }
        if kind == HEADERS || kind == DATA {
            self.ended |= flags & END_STREAM != 0;
        }
        Ok(())
    }

    /// Lets go of as much as both of the server's windows allow.
    fn release(&mut self) {
        let window = usize::try_from(self.connection_window.min(self.stream_window)).unwrap_or(0);
        let now = self.held.len().min(window);
        if now == 0 {
            return;
        }
        for chunk in self.held[..now].chunks(MAX_FRAME) {
            put_frame(DATA, 0, STREAM, chunk, &mut self.out);
        }
        self.held.drain(..now);
        if self.held.is_empty() {
            self.held = Vec::new();
        }
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        self.connection_window -= now;
        self.stream_window -= now;
    }
}

/// gRPC's frames within DATA.
#[derive(Debug)]
struct Grpc {
    header: Partial<5>,
    /// What the message that is being read still lacks.
    left: Option<usize>,
    message: Vec<u8>,
}

impl Grpc {
    fn feed(&mut self, mut input: &[u8], on_message: &mut impl FnMut(&[u8])) {
        loop {
            let left = match self.left {
                Some(left) => left,
                None => match self.header.fill(&mut input) {
                    Some([_, l0, l1, l2, l3]) => u32::from_be_bytes([l0, l1, l2, l3]) as usize,
                    None => return,
                },
            };
            let (taken, rest) = input.split_at(input.len().min(left));
            input = rest;
            if taken.len() < left {
                if self.left.is_none() {
                    self.message.reserve_exact(left);
                }
                self.message.extend_from_slice(taken);
                self.left = Some(left - taken.len());
                return;
            }
            self.left = None;
            if self.message.is_empty() {
                on_message(taken);
            } else {
                self.message.extend_from_slice(taken);
                on_message(&std::mem::take(&mut self.message));
            }
        }
    }
}

fn put_frame(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    let [_, l0, l1, l2] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&[l0, l1, l2, kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A string as HPACK has it, not compressed; ours are shorter than 127 bytes.
fn put_literal(text: &str, out: &mut Vec<u8>) {
    debug_assert!(text.len() < 127);
    out.push(u8::try_from(text.len()).unwrap_or(126));
    out.extend_from_slice(text.as_bytes());
}
