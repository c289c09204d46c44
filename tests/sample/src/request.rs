//! HTTP/1.1 requests out of bytes: the head, and where the body ends. Pure; whatever a client sends gives a request, a
//! wish for more bytes, or a reason to refuse, never a panic.

/// As much as Envoy lets through by default (60 KiB) and a little more.
const MAX_HEAD: usize = 64 * 1024;
pub(crate) const MAX_HEADERS: usize = 128;
/// Longer bodies are refused: nothing here reads them.
pub(crate) const MAX_BODY: u64 = 64 * 1024 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// As sent, without the query.
    pub(crate) path: String,
    /// Without the question mark; empty if there is none.
    pub(crate) query: String,
    /// Names in lower case, in the order sent.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Body,
    pub(crate) keep_alive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    Length(u64),
    Chunked,
}

/// Why a request cannot be answered in its own right; the connection ends with this status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
}

impl Request {
    /// The request at the start of `bytes` and the length of its head, or None if more bytes are needed.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Refusal> {
        let Some(end) = find(bytes, b"\r\n\r\n") else {
            return if bytes.len() > MAX_HEAD { refuse(431, "head too long") } else { Ok(None) };
        };
        if end > MAX_HEAD {
            return refuse(431, "head too long");
        }
        let Ok(head) = std::str::from_utf8(&bytes[..end]) else { return refuse(400, "head is not UTF-8") };
        let mut lines = head.split("\r\n");
        let (method, target, version) = request_line(lines.next().unwrap_or_default())?;
        let headers = lines.map(header).collect::<Result<Vec<_>, _>>()?;
        if headers.len() > MAX_HEADERS {
            return refuse(431, "too many headers");
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers,
            body: Body::Length(0),
            keep_alive: false,
        };
        request.body = request.framing()?;
        request.keep_alive = !request.has_token("connection", "close")
            && (version == "HTTP/1.1" || request.has_token("connection", "keep-alive"));
        Ok(Some((request, end + 4)))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether the comma-separated header holds the token, in whatever case.
    pub(crate) fn has_token(&self, name: &str, token: &str) -> bool {
        let mut values = self.headers.iter().filter(|(key, _)| key == name).flat_map(|(_, value)| value.split(','));
        values.any(|value| value.trim().eq_ignore_ascii_case(token))
    }

    /// The value of a query parameter, as sent.
    pub(crate) fn query_value(&self, name: &str) -> Option<&str> {
        self.query_pairs().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    pub(crate) fn query_pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.query.split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// RFC 9112, 6.3: both framings at once, or two different lengths, are how requests are smuggled.
    fn framing(&self) -> Result<Body, Refusal> {
        let chunked = self.header("transfer-encoding").is_some();
        let mut lengths = self.headers.iter().filter(|(key, _)| key == "content-length").map(|(_, value)| value);
        match (chunked, lengths.next()) {
            (true, Some(_)) => refuse(400, "both content-length and transfer-encoding"),
            (true, None) if self.has_token("transfer-encoding", "chunked") => Ok(Body::Chunked),
            (true, None) => refuse(501, "transfer-encoding other than chunked"),
            (false, None) => Ok(Body::Length(0)),
            (false, Some(first)) => {
                if lengths.any(|other| other != first) || !first.bytes().all(|byte| byte.is_ascii_digit()) {
                    return refuse(400, "bad content-length");
                }
                match first.parse() {
                    Ok(length @ 0..=MAX_BODY) => Ok(Body::Length(length)),
                    Ok(_) => refuse(413, "body too long"),
                    Err(_) => refuse(400, "bad content-length"),
                }
            }
        }
    }
}

/// The size on a chunk's first line, which may carry extensions.
pub(crate) fn chunk_size(line: &str) -> Result<u64, Refusal> {
    let digits = line.split(';').next().unwrap_or_default().trim();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return refuse(400, "bad chunk size");
    }
    match u64::from_str_radix(digits, 16) {
        Ok(size @ 0..=MAX_BODY) => Ok(size),
        _ => refuse(413, "body too long"),
    }
}

pub(crate) fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

fn request_line(line: &str) -> Result<(&str, &str, &str), Refusal> {
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return refuse(400, "bad request line");
    };
    if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return refuse(400, "bad method");
    }
    if !target.starts_with('/') || target.bytes().any(|byte| byte.is_ascii_control()) {
        return refuse(400, "bad target");
    }
    match version {
        "HTTP/1.1" | "HTTP/1.0" => Ok((method, target, version)),
        _ => refuse(505, "only HTTP/1.1"),
    }
}

fn header(line: &str) -> Result<(String, String), Refusal> {
    let Some((name, value)) = line.split_once(':') else { return refuse(400, "bad header") };
    let is_token = |byte: u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return refuse(400, "bad header name");
    }
    let value = value.trim_matches([' ', '\t']);
    if value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
        return refuse(400, "bad header value");
    }
    Ok((name.to_ascii_lowercase(), value.to_owned()))
}

fn refuse<T>(status: u16, reason: &'static str) -> Result<T, Refusal> {
    Err(Refusal { status, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Request {
        Request::parse(text.as_bytes()).unwrap().unwrap().0
    }

    fn status(bytes: &[u8]) -> u16 {
        Request::parse(bytes).unwrap_err().status
    }

    #[test]
    fn a_request_is_read_up_to_the_end_of_its_head() {
        let text = "GET /slow?ms=20&x HTTP/1.1\r\nHost: shop.localhost\r\nX-A:  b \r\n\r\nGET /next";
        let (request, length) = Request::parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!(&text[length..], "GET /next");
        assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/slow"));
        assert_eq!(request.query_pairs().collect::<Vec<_>>(), [("ms", "20"), ("x", "")]);
        assert_eq!(request.header("x-a"), Some("b"));
        assert_eq!((request.body, request.keep_alive), (Body::Length(0), true));
    }

    #[test]
    fn every_prefix_asks_for_more() {
        let text = "POST /control?ready=false HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(Request::parse(&text.as_bytes()[..end]), Ok(None), "{end} bytes");
        }
    }

    #[test]
    fn connections_are_kept_as_the_version_and_header_say() {
        for (head, kept) in [
            ("GET / HTTP/1.1", true),
            ("GET / HTTP/1.1\r\nConnection: Close", false),
            ("GET / HTTP/1.1\r\nConnection: upgrade, close", false),
            ("GET / HTTP/1.0", false),
            ("GET / HTTP/1.0\r\nConnection: keep-alive", true),
        ] {
            assert_eq!(request(&format!("{head}\r\n\r\n")).keep_alive, kept, "{head}");
        }
    }

    #[test]
    fn bodies_are_framed_by_length_or_chunks() {
        assert_eq!(request("POST / HTTP/1.1\r\nContent-Length: 12\r\n\r\n").body, Body::Length(12));
        assert_eq!(request("POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n").body, Body::Chunked);
        assert_eq!(chunk_size("1F;name=value"), Ok(31));
        for line in ["", "g", "-1", "+1", "ffffffffffffffff", "0x1"] {
            assert!(chunk_size(line).is_err(), "{line}");
        }
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for headers in [
            "content-length: 1\r\ntransfer-encoding: chunked",
            "content-length: 1\r\ncontent-length: 2",
            "content-length: -1",
            "content-length: +1",
            "content-length: 1, 1",
            "content-length:",
        ] {
            assert_eq!(status(format!("POST / HTTP/1.1\r\n{headers}\r\n\r\n").as_bytes()), 400, "{headers}");
        }
        assert_eq!(status(b"POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n"), 501);
        assert_eq!(status(b"POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n"), 413);
    }

    #[test]
    fn garbage_is_refused() {
        let long = [b"GET / HTTP/1.1\r\na: ".as_slice(), &[b'a'; MAX_HEAD]].concat();
        assert_eq!(status(&long), 431);
        assert_eq!(status(format!("GET / HTTP/1.1{}\r\n\r\n", "\r\na: b".repeat(MAX_HEADERS + 1)).as_bytes()), 431);
        for bytes in [
            b"\r\n\r\n".as_slice(),
            b"\x16\x03\x01\x02\r\n\r\n",
            b"\xff\xfe\r\n\r\n",
            b"GET  / HTTP/1.1\r\n\r\n",
            b"G\0T / HTTP/1.1\r\n\r\n",
            b"GET nowhere HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET / HTTP/1.1\r\na b: c\r\n\r\n",
            b"GET / HTTP/1.1\r\na: b\nc: d\r\n\r\n",
        ] {
            assert_eq!(status(bytes), 400, "{bytes:?}");
        }
        assert_eq!(status(b"PRI / HTTP/2.0\r\n\r\n"), 505);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        // A cheap generator: mutate a good request at every position with every kind of byte that means something.
        let good = b"POST /a?b=c HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc";
        for position in 0..good.len() {
            for byte in *b"\0\r\n :;?=/\x7f\xff0A" {
                let mut bytes = good.to_vec();
                bytes[position] = byte;
                let _ = Request::parse(&bytes);
            }
        }
    }
}
