//! The endpoints: a request and the present behaviour give an answer, and how long to wait before it.

use std::{fmt::Write as _, time::Duration};

use crate::{
    behaviour::{Behaviour, MAX_DELAY},
    request::{Refusal, Request},
};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    content_type: &'static str,
    body: String,
    /// What to switch the connection to; everything after the head is echoed.
    pub(crate) upgrade: Option<String>,
    /// How long to wait before answering.
    pub(crate) delay: Duration,
    /// Where the body is more than one piece: so many follow the head, one each [`PAUSE`].
    pub(crate) pieces: Option<u64>,
}

/// Before each piece of a body that comes in pieces.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

impl Answer {
    fn new(status: u16, content_type: &'static str, body: String) -> Self {
        Self { status, content_type, body, upgrade: None, delay: Duration::ZERO, pieces: None }
    }

    fn text(status: u16, body: &str) -> Self {
        Self::new(status, TEXT, format!("{body}\n"))
    }

    pub(crate) fn to(request: &Request, body_length: u64, behaviour: &Behaviour) -> Self {
        match (request.path.as_str(), request.method.as_str()) {
            ("/health", _) if behaviour.is_healthy() => Self::text(200, "healthy"),
            ("/health", _) => Self::text(503, "unhealthy"),
            ("/ready", _) if behaviour.is_ready() => Self::text(200, "ready"),
            ("/ready", _) => Self::text(503, "not ready"),
            ("/control", "POST") => match behaviour.control(request) {
                Ok(()) => Self::new(200, JSON, behaviour.describe()),
                Err(problem) => Self::new(400, TEXT, problem),
            },
            ("/control", "GET" | "HEAD") => Self::new(200, JSON, behaviour.describe()),
            ("/control", _) => Self::text(405, "POST to change, GET to look"),
            _ => Self::to_client(request, body_length, behaviour),
        }
    }

    /// What clients ask for, as opposed to checks and `/control`: it is counted, delayed, and fails as often as told.
    fn to_client(request: &Request, body_length: u64, behaviour: &Behaviour) -> Self {
        let number = behaviour.count();
        let mut answer = if behaviour.fails(number) {
            Self::text(500, "failing, as told")
        } else {
            match request.path.as_str() {
                "/version" => Self::text(200, &behaviour.settings.version),
                "/slow" => slow(request),
                "/stream" => stream(request),
                "/echo" => Self::new(200, TEXT, echo(request, body_length)),
                "/ws" => upgrade(request),
                _ => Self::new(200, JSON, identity(request, number, behaviour)),
            }
        };
        answer.delay = (answer.delay + behaviour.delay()).min(MAX_DELAY);
        answer
    }

    pub(crate) fn refusing(refusal: Refusal) -> Self {
        Self::text(refusal.status, refusal.reason)
    }

    /// The whole answer as bytes, for one write.
    pub(crate) fn encode(&self, request: Option<&Request>, keep_alive: bool, behaviour: &Behaviour) -> Vec<u8> {
        let mut text = format!("HTTP/1.1 {} {}\r\n", self.status, phrase(self.status));
        let _ = write!(text, "x-served-by: {}\r\n", header_value(&behaviour.served_by));
        if let Some(protocol) = &self.upgrade {
            let _ = write!(text, "connection: upgrade\r\nupgrade: {protocol}\r\n\r\n");
            return text.into_bytes();
        }
        let _ = write!(text, "content-type: {}\r\n", self.content_type);
        let _ = match self.pieces {
            Some(_) => write!(text, "transfer-encoding: chunked\r\n"),
            None => write!(text, "content-length: {}\r\n", self.body.len()),
        };
        text.push_str(if keep_alive { "\r\n" } else { "connection: close\r\n\r\n" });
        if request.is_none_or(|request| request.method != "HEAD") {
            text.push_str(&self.body);
        }
        text.into_bytes()
    }
}

fn slow(request: &Request) -> Answer {
    match lasts(request) {
        Some(delay) => Answer { delay, ..Answer::text(200, &format!("waited {} ms", delay.as_millis())) },
        None => Answer::text(400, "ms is a whole number"),
    }
}

/// A download that takes so long: its head comes at once.
fn stream(request: &Request) -> Answer {
    match lasts(request) {
        Some(lasts) => {
            let pieces = lasts.as_millis() / PAUSE.as_millis();
            Answer { pieces: u64::try_from(pieces).ok(), ..Answer::new(200, TEXT, String::new()) }
        }
        None => Answer::text(400, "ms is a whole number"),
    }
}

fn lasts(request: &Request) -> Option<Duration> {
    let ms = request.query_value("ms").unwrap_or("0").parse().ok()?;
    Some(Duration::from_millis(ms).min(MAX_DELAY))
}

/// The request as it arrived here, to see what a proxy added and took away.
fn echo(request: &Request, body_length: u64) -> String {
    let query = if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
    let mut text = format!("{} {}{query}\n", request.method, request.path);
    for (name, value) in &request.headers {
        let _ = writeln!(text, "{name}: {value}");
    }
    let _ = writeln!(text, "\n{body_length} bytes of body");
    text
}

/// Any protocol that is asked for: what follows is echoed byte by byte. It proves that upgrades and both directions pass,
/// which is all that a proxy sees of a WebSocket; it does not speak WebSocket's frames.
fn upgrade(request: &Request) -> Answer {
    match request.header("upgrade") {
        Some(protocol) if request.has_token("connection", "upgrade") => {
            Answer { upgrade: Some(protocol.to_owned()), ..Answer::text(101, "") }
        }
        _ => Answer::text(426, "an upgrade, please"),
    }
}

fn identity(request: &Request, number: u64, behaviour: &Behaviour) -> String {
    let settings = &behaviour.settings;
    let mut text = String::from("{");
    for (name, value) in [
        ("service", settings.service.as_str()),
        ("version", &settings.version),
        ("host", &settings.hostname),
        ("path", &request.path),
    ] {
        let _ = write!(text, "\"{name}\":{},", json_string(value));
    }
    let _ = writeln!(text, "\"requests\":{number}}}");
    text
}

fn json_string(value: &str) -> String {
    let mut text = String::from("\"");
    for character in value.chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            character if character.is_control() => {
                let _ = write!(text, "\\u{:04x}", u32::from(character));
            }
            character => text.push(character),
        }
    }
    text.push('"');
    text
}

/// VERSION and HOSTNAME come from whoever started the container; they must not be able to break the head.
fn header_value(value: &str) -> String {
    value.chars().map(|character| if character.is_ascii_graphic() { character } else { '_' }).collect()
}

fn phrase(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        400 => "Bad Request",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Unnamed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::tests::behaviour;

    fn answer(behaviour: &Behaviour, head: &str) -> (Answer, String) {
        let request = Request::parse(format!("{head}\r\n\r\n").as_bytes()).unwrap().unwrap().0;
        let answer = Answer::to(&request, 0, behaviour);
        let text = String::from_utf8(answer.encode(Some(&request), request.keep_alive, behaviour)).unwrap();
        (answer, text)
    }

    #[test]
    fn any_path_says_who_answered() {
        let behaviour = behaviour();
        let (_, text) = answer(&behaviour, "GET /a\"b HTTP/1.1");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("x-served-by: v2/box"), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        assert_eq!(
            body,
            "{\"service\":\"shop\",\"version\":\"v2\",\"host\":\"box\",\"path\":\"/a\\\"b\",\"requests\":1}\n"
        );
    }

    #[test]
    fn checks_are_neither_counted_nor_failed() {
        let behaviour = behaviour();
        assert_eq!(answer(&behaviour, "POST /control?errors=100&delay_ms=9 HTTP/1.1").0.status, 200);
        for path in ["/health", "/ready", "/control"] {
            let (answer, _) = answer(&behaviour, &format!("GET {path} HTTP/1.1"));
            assert_eq!((answer.status, answer.delay), (200, Duration::ZERO), "{path}");
        }
        assert!(behaviour.describe().contains("\"requests\":0"));
        let (answer, _) = answer(&behaviour, "GET /version HTTP/1.1");
        assert_eq!((answer.status, answer.delay), (500, Duration::from_millis(9)));
    }

    #[test]
    fn slowness_is_bounded() {
        let behaviour = behaviour();
        assert_eq!(answer(&behaviour, "GET /slow?ms=250 HTTP/1.1").0.delay, Duration::from_millis(250));
        assert_eq!(answer(&behaviour, "GET /slow?ms=99999999 HTTP/1.1").0.delay, MAX_DELAY);
        assert_eq!(answer(&behaviour, "GET /slow?ms=x HTTP/1.1").0.status, 400);
    }

    #[test]
    fn a_download_comes_in_pieces() {
        let (answer, text) = answer(&behaviour(), "GET /stream?ms=1000 HTTP/1.1");
        assert_eq!(answer.pieces, Some(10));
        assert!(text.ends_with("transfer-encoding: chunked\r\n\r\n"), "{text}");
    }

    #[test]
    fn upgrades_must_be_asked_for() {
        let behaviour = behaviour();
        assert_eq!(answer(&behaviour, "GET /ws HTTP/1.1").0.status, 426);
        let (_, text) = answer(&behaviour, "GET /ws HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket");
        assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
        assert!(text.ends_with("connection: upgrade\r\nupgrade: websocket\r\n\r\n"), "{text}");
    }

    #[test]
    fn head_has_no_body() {
        let (_, text) = answer(&behaviour(), "HEAD /version HTTP/1.1\r\nConnection: close");
        assert!(text.ends_with("content-length: 3\r\nconnection: close\r\n\r\n"), "{text}");
    }

    #[test]
    fn names_cannot_break_the_head() {
        assert_eq!(header_value("v1\r\nx: y/ü"), "v1__x:_y/_");
    }
}
