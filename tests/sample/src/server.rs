//! Connections: one thread each, kept alive, one write per answer. Knows when to stop: draining closes the listener and
//! idle connections, lets what is in flight finish, and then returns.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use crate::{
    answer::{Answer, PAUSE},
    backlog,
    behaviour::Behaviour,
    request::{Body, MAX_BODY, MAX_HEADERS, Refusal, Request, chunk_size, find},
};

/// Nobody keeps a connection silent for longer than this and still means it; Envoy's own idle time-out is an hour.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2 * 3600);
/// A client that starts a request has this long for each further piece of it.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const STACK: usize = 128 * 1024;

pub(crate) struct Server {
    behaviour: Arc<Behaviour>,
    draining: AtomicBool,
    connections: Mutex<Connections>,
    closed: Condvar,
}

#[derive(Default)]
struct Connections {
    next: u64,
    /// A second handle of the listener, by which `drain` ends the blocking accept. None before and after it accepts.
    listener: Option<TcpListener>,
    open: HashMap<u64, Arc<Connection>>,
}

struct Connection {
    stream: TcpStream,
    /// No request is being read or answered, or the connection was upgraded: draining may end it.
    idle: AtomicBool,
}

impl Server {
    pub(crate) fn new(behaviour: Arc<Behaviour>) -> Self {
        let connections = Mutex::new(Connections::default());
        Self { behaviour, draining: AtomicBool::new(false), connections, closed: Condvar::new() }
    }

    /// Accepts until drained, then whoever had already connected. Errors only if it cannot listen.
    pub(crate) fn run(self: Arc<Self>, address: SocketAddr) -> io::Result<()> {
        let listener = TcpListener::bind(address)?;
        backlog::widen(&listener);
        let local = listener.local_addr()?;
        self.lock().listener = Some(listener.try_clone()?);
        let settings = &self.behaviour.settings;
        println!("{} {} listens on {local}", settings.service, settings.version);
        loop {
            match listener.accept() {
                Ok((stream, _)) => self.start(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Out of descriptors, or a client already gone: that concerns one connection.
                Err(_) => {}
            }
        }
        drop(listener);
        self.lock().listener = None;
        self.closed.notify_all();
        Ok(())
    }

    /// Accepts no more, ends idle connections, and returns when the last one in flight is answered.
    pub(crate) fn drain(&self) {
        self.draining.store(true, SeqCst);
        let mut connections = self.lock();
        if let Some(listener) = &connections.listener {
            end_accepting(listener);
        }
        for connection in connections.open.values() {
            connection.end_if_idle();
        }
        while connections.listener.is_some() || !connections.open.is_empty() {
            connections = self.closed.wait(connections).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn start(self: &Arc<Self>, stream: TcpStream) {
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let connection = Arc::new(Connection { stream, idle: AtomicBool::new(true) });
        let id = {
            let mut connections = self.lock();
            connections.next += 1;
            let id = connections.next;
            connections.open.insert(id, Arc::clone(&connection));
            id
        };
        if self.draining.load(SeqCst) {
            connection.end_if_idle();
        }
        let server = Arc::clone(self);
        let served = thread::Builder::new().stack_size(STACK).spawn(move || {
            // The client's disappearance is its own business.
            let _ = server.serve(&connection);
            server.end(id);
        });
        if served.is_err() {
            self.end(id);
        }
    }

    fn end(&self, id: u64) {
        self.lock().open.remove(&id);
        self.closed.notify_all();
    }

    fn serve(&self, connection: &Connection) -> io::Result<()> {
        let mut input = Input::new(connection);
        loop {
            let request = match input.request() {
                Ok(Some(request)) => request,
                Ok(None) => return Ok(()),
                Err(failure) => return self.refuse(connection, failure),
            };
            if request.has_token("expect", "100-continue") {
                (&connection.stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let body_length = match input.skip_body(request.body) {
                Ok(length) => length,
                Err(failure) => return self.refuse(connection, failure),
            };
            let answer = Answer::to(&request, body_length, &self.behaviour);
            if !answer.delay.is_zero() {
                thread::sleep(answer.delay);
            }
            let keep_alive = request.keep_alive && !self.draining.load(SeqCst);
            let bytes = answer.encode(Some(&request), keep_alive, &self.behaviour);
            (&connection.stream).write_all(&bytes)?;
            if answer.upgrade.is_some() {
                return input.echo();
            }
            if let Some(pieces) = answer.pieces.filter(|_| request.method != "HEAD") {
                send(&connection.stream, pieces)?;
            }
            if !keep_alive {
                return Ok(());
            }
            input.rest();
            // `drain` may just have passed over this connection as busy.
            if self.draining.load(SeqCst) {
                connection.end_if_idle();
            }
        }
    }

    fn refuse(&self, connection: &Connection, failure: Failure) -> io::Result<()> {
        match failure {
            Failure::Refusal(refusal) => {
                let bytes = Answer::refusing(refusal).encode(None, false, &self.behaviour);
                (&connection.stream).write_all(&bytes)?;
                connection.stream.shutdown(Shutdown::Write)
            }
            Failure::Io(error) => Err(error),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Ends reading only, which on Linux still yields what has arrived: a request that is already here is answered.
    fn end_if_idle(&self) {
        if self.idle.load(SeqCst) {
            let _ = self.stream.shutdown(Shutdown::Read);
        }
    }
}

/// So many pieces of a body, each after a pause, and its end.
fn send(mut stream: &TcpStream, pieces: u64) -> io::Result<()> {
    for _ in 0..pieces {
        thread::sleep(PAUSE);
        stream.write_all(b"6\r\npiece\n\r\n")?;
    }
    stream.write_all(b"0\r\n\r\n")
}

enum Failure {
    Refusal(Refusal),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
    }
}

/// The bytes of a connection that are read and not yet used.
struct Input<'c> {
    connection: &'c Connection,
    buffer: Vec<u8>,
    used: usize,
}

impl<'c> Input<'c> {
    fn new(connection: &'c Connection) -> Self {
        Self { connection, buffer: Vec::with_capacity(4096), used: 0 }
    }

    /// The next request's head, or None if the client is done.
    fn request(&mut self) -> Result<Option<Request>, Failure> {
        loop {
            if let Some((request, length)) = Request::parse(self.unused())? {
                self.used += length;
                return Ok(Some(request));
            }
            let waiting = self.unused().is_empty();
            self.connection.stream.set_read_timeout(Some(if waiting { IDLE_TIMEOUT } else { READ_TIMEOUT }))?;
            if self.fill()? == 0 {
                return Ok(None);
            }
            self.connection.idle.store(false, SeqCst);
        }
    }

    /// Reads the body and forgets it; says how long it was.
    fn skip_body(&mut self, body: Body) -> Result<u64, Failure> {
        match body {
            Body::Length(length) => {
                self.skip(length)?;
                Ok(length)
            }
            Body::Chunked => {
                let mut total = 0;
                loop {
                    let size = chunk_size(&self.line()?)?;
                    if size == 0 {
                        return self.skip_trailers().map(|()| total);
                    }
                    self.skip(size)?;
                    if !self.line()?.is_empty() {
                        return Err(Refusal { status: 400, reason: "bad chunk" }.into());
                    }
                    total += size;
                    if total > MAX_BODY {
                        return Err(Refusal { status: 413, reason: "body too long" }.into());
                    }
                }
            }
        }
    }

    fn skip_trailers(&mut self) -> Result<(), Failure> {
        for _ in 0..MAX_HEADERS {
            if self.line()?.is_empty() {
                return Ok(());
            }
        }
        Err(Refusal { status: 431, reason: "too many trailers" }.into())
    }

    /// The answer is written: the connection is idle unless the next request is already here.
    fn rest(&mut self) {
        if self.unused().is_empty() {
            self.connection.idle.store(true, SeqCst);
        }
    }

    /// Sends back whatever comes, until the client is done.
    fn echo(mut self) -> io::Result<()> {
        self.connection.idle.store(true, SeqCst);
        self.connection.stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
        loop {
            (&self.connection.stream).write_all(self.unused())?;
            self.used = self.buffer.len();
            if self.fill()? == 0 {
                return self.connection.stream.shutdown(Shutdown::Write);
            }
        }
    }

    fn skip(&mut self, mut length: u64) -> io::Result<()> {
        loop {
            let here = self.unused().len().min(usize::try_from(length).unwrap_or(usize::MAX));
            self.used += here;
            length -= here as u64;
            if length == 0 {
                return Ok(());
            }
            self.more()?;
        }
    }

    /// A line of the chunked framing, without its end.
    fn line(&mut self) -> Result<String, Failure> {
        const MAX_LINE: usize = 8 * 1024;
        loop {
            if let Some(end) = find(self.unused(), b"\r\n") {
                let line = String::from_utf8_lossy(&self.unused()[..end]).into_owned();
                self.used += end + 2;
                return Ok(line);
            }
            if self.unused().len() > MAX_LINE {
                return Err(Refusal { status: 400, reason: "line too long" }.into());
            }
            self.more()?;
        }
    }

    fn unused(&self) -> &[u8] {
        &self.buffer[self.used..]
    }

    /// Reads at least one byte more.
    fn more(&mut self) -> io::Result<()> {
        self.connection.stream.set_read_timeout(Some(READ_TIMEOUT))?;
        if self.fill()? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn fill(&mut self) -> io::Result<usize> {
        self.buffer.drain(..self.used);
        self.used = 0;
        let mut piece = [0; 8 * 1024];
        let length = loop {
            match (&self.connection.stream).read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.buffer.extend_from_slice(&piece[..length]);
        Ok(length)
    }
}

/// Lets the accept loop take who has already connected and then see that there is nobody: the descriptor's mode is shared
/// with the loop's handle, and a connection to oneself wakes it if it sleeps.
fn end_accepting(listener: &TcpListener) {
    let _ = listener.set_nonblocking(true);
    if let Ok(mut address) = listener.local_addr() {
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        let _ = TcpStream::connect_timeout(&address, Duration::from_secs(1));
    }
}
