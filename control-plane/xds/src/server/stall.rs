//! Clients that do not take what they are sent. A stream runs only when its connection takes more (see `stream`), so one
//! whose client gives no window cannot end itself, and one that has ended can leave behind what was written for it. Here
//! it is watched from outside: a response body that has something to do and is not asked for it stands still, and its
//! connection is cut. Knows nothing of xDS.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;
use http_body::{Frame, SizeHint};
use tokio::time::MissedTickBehavior;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tracing::warn;

use crate::server::incoming::{Connections, Peer};

/// In how many looks a stream may stand still. They are counted, not timed: a server that is too busy to look is too busy
/// to serve, and its clients are not to blame.
const PATIENCE: u8 = 8;

/// All streams of a server, and what ends those that stand still. Clones share everything.
#[derive(Clone, Debug)]
pub(super) struct Stalls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    streams: Mutex<BTreeMap<u64, Arc<Due>>>,
    last: AtomicU64,
    counts: Connections,
}

/// What the parts of a server have in common of one connection.
#[derive(Clone, Debug)]
pub(super) struct Line {
    of: Arc<State>,
    stalls: Stalls,
}

#[derive(Debug)]
struct State {
    peer: SocketAddr,
    /// Its IO fails from now on.
    cut: AtomicBool,
    /// It is gone.
    over: AtomicBool,
    condemned: AtomicBool,
    /// The task that reads and writes.
    task: AtomicWaker,
}

/// One stream, or the rest of one.
#[derive(Debug)]
struct Due {
    /// 0: nothing to do, or asked for it a moment ago; else one more than the looks that found it so.
    looks: AtomicU8,
    /// The task that asks.
    task: AtomicWaker,
    line: Arc<State>,
}

impl Stalls {
    pub(super) fn new(counts: Connections) -> Self {
        Self(Arc::new(Shared { streams: Mutex::default(), last: AtomicU64::new(0), counts }))
    }

    pub(super) fn line(&self, peer: SocketAddr) -> Line {
        let state = State {
            peer,
            cut: AtomicBool::new(false),
            over: AtomicBool::new(false),
            condemned: AtomicBool::new(false),
            task: AtomicWaker::new(),
        };
        Line { of: Arc::new(state), stalls: self.clone() }
    }

    /// Cuts the connection of every stream that stands still for `timeout`, or up to an eighth longer.
    pub(super) async fn watch(&self, timeout: Duration) -> Infallible {
        let period = (timeout / u32::from(PATIENCE)).max(Duration::from_millis(1));
        let mut looks = tokio::time::interval(period);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.look();
        }
    }

    fn look(&self) {
        self.streams().retain(|_, due| {
            if due.line.over.load(Ordering::Relaxed) || due.line.cut.load(Ordering::Relaxed) {
                return false;
            }
            let looks = due.looks.load(Ordering::Relaxed);
            if looks > PATIENCE {
                warn!(peer = %due.line.peer, "an xDS client does not take what it is sent and is cut off");
                self.0.counts.count_stalled();
                due.line.cut();
                return false;
            }
            if looks > 0 {
                // Unless it was asked just now.
                let _ = due.looks.compare_exchange(looks, looks + 1, Ordering::Relaxed, Ordering::Relaxed);
            }
            true
        });
    }

    fn join(&self, due: Arc<Due>) -> u64 {
        let id = self.0.last.fetch_add(1, Ordering::Relaxed);
        self.streams().insert(id, due);
        id
    }

    fn streams(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Due>>> {
        self.0.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// The connection has little time left to end: what a stream left behind that the server has ended may stay in its
    /// buffers for as long as the client likes.
    pub(super) fn condemn(&self) {
        if !self.of.condemned.swap(true, Ordering::Relaxed) {
            let looks = AtomicU8::new(PATIENCE);
            self.stalls.join(Arc::new(Due { looks, task: AtomicWaker::new(), line: Arc::clone(&self.of) }));
        }
    }

    /// What the server counts.
    pub(super) fn counts(&self) -> &Connections {
        &self.stalls.0.counts
    }

    /// Fails once the connection is cut; called by its IO when it would wait.
    pub(super) fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        self.of.task.register(cx.waker());
        match self.of.cut.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not take what it is sent")),
        }
    }

    /// The connection is gone.
    pub(super) fn end(&self) {
        self.of.over.store(true, Ordering::Relaxed);
    }
}

impl State {
    fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl Due {
    fn poll<T>(
        self: &Arc<Self>,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<Option<T>>,
    ) -> Poll<Option<T>> {
        self.looks.store(0, Ordering::Relaxed);
        self.task.register(cx.waker());
        let polled = poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))));
        // Who got something is to come back for more.
        let looks = u8::from(matches!(polled, Poll::Ready(Some(_))));
        if looks > 0 {
            self.looks.store(looks, Ordering::Relaxed);
        }
        polled
    }
}

impl Wake for Due {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let _ = self.looks.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed);
        self.task.wake();
    }
}

/// A service whose response bodies are watched.
#[derive(Clone, Debug)]
pub(super) struct Watched<S> {
    pub(super) service: S,
    pub(super) stalls: Stalls,
}

impl<S> Service<http::Request<Body>> for Watched<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<WatchedBody>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let line = request.extensions().get::<Peer>().map(|peer| Arc::clone(&peer.line().of));
        let stalls = self.stalls.clone();
        let response = self.service.call(request);
        Box::pin(async move {
            let response = response.await?;
            let place = line.map(|line| {
                let due = Arc::new(Due { looks: AtomicU8::new(0), task: AtomicWaker::new(), line });
                Place { id: stalls.join(Arc::clone(&due)), due, stalls }
            });
            Ok(response.map(|body| WatchedBody { body, place }))
        })
    }
}

/// A response body, which stands still when it could go on and is not asked to.
#[derive(Debug)]
pub(super) struct WatchedBody {
    body: Body,
    /// `None` if there is no connection to cut.
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    id: u64,
    due: Arc<Due>,
    stalls: Stalls,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stalls.streams().remove(&self.id);
    }
}

impl http_body::Body for WatchedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Self { body, place } = &mut *self;
        let body = Pin::new(body);
        match place {
            Some(place) => place.due.poll(cx, |cx| body.poll_frame(cx)),
            None => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> (Stalls, Line) {
        let stalls = Stalls::new(Connections::default());
        let line = stalls.line(([127, 0, 0, 1], 1).into());
        (stalls, line)
    }

    fn stream(stalls: &Stalls, line: &Line) -> Arc<Due> {
        let due = Arc::new(Due { looks: AtomicU8::new(0), task: AtomicWaker::new(), line: Arc::clone(&line.of) });
        stalls.join(Arc::clone(&due));
        due
    }

    fn is_cut(line: &Line) -> bool {
        line.check(&Context::from_waker(Waker::noop())).is_err()
    }

    #[test]
    fn who_is_not_asked_for_what_it_could_give_is_cut() {
        let (stalls, line) = line();
        let due = stream(&stalls, &line);
        let cx = Context::from_waker(Waker::noop());
        let look = |times: u8| (0..times).for_each(|_| stalls.look());
        let idle = || assert_eq!(due.poll(&cx, |_| Poll::<Option<()>>::Pending), Poll::Pending);

        idle();
        look(10 * PATIENCE);
        assert!(!is_cut(&line), "it has nothing to do");
        for _ in 0..10 {
            Waker::from(Arc::clone(&due)).wake();
            look(PATIENCE);
            idle();
        }
        assert!(!is_cut(&line), "it was asked each time");
        assert!(due.poll(&cx, |_| Poll::Ready(Some(()))).is_ready());
        look(PATIENCE);
        assert!(!is_cut(&line));
        look(1);
        assert!(is_cut(&line) && line.counts().stalled() == 1, "nobody came back for more");
    }

    #[test]
    fn who_is_woken_and_not_asked_is_cut_and_so_is_who_is_condemned() {
        let (stalls, woken) = line();
        let due = stream(&stalls, &woken);
        let other = stalls.line(([127, 0, 0, 1], 2).into());
        Waker::from(due).wake();
        other.condemn();
        other.condemn();
        stalls.look();
        assert!(!is_cut(&other), "it has a moment");
        stalls.look();
        assert!(is_cut(&other) && !is_cut(&woken));
        (0..PATIENCE).for_each(|_| stalls.look());
        assert!(is_cut(&woken) && stalls.streams().is_empty());
        assert_eq!(woken.counts().stalled(), 2);
    }
}
