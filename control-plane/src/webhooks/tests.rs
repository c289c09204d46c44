use std::net::SocketAddr;

use tidegate_core::VersionName;
use tidegate_core::state::trials::About;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const SOON: Duration = Duration::from_secs(5);

/// Answers every request with `answer`, and never where there is none; what it was sent comes out of the channel.
async fn server(tasks: &mut JoinSet<()>, answer: Option<String>) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, heard) = mpsc::channel(64);
    tasks.spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            let mut part = [0; 4096];
            // Head and body come in one piece or two; a body of ours ends with a brace.
            let is_whole = |request: &[u8]| {
                request.ends_with(b"}") || request.starts_with(b"GET") && request.ends_with(b"\r\n\r\n")
            };
            while !is_whole(&request) {
                let read = stream.read(&mut part).await.unwrap();
                request.extend_from_slice(&part[..read]);
                if read == 0 {
                    break;
                }
            }
            let _ = sender.send(String::from_utf8_lossy(&request).into_owned()).await;
            match &answer {
                Some(answer) => {
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
                None => open.push(stream),
            }
        }
    });
    (address, heard)
}

fn answer(status: &str, body: &str) -> Option<String> {
    Some(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nlocation: /else\r\n\r\n{body}", body.len()))
}

fn name(service: &str) -> ServiceName {
    ServiceName::new(service).unwrap()
}

fn errand(service: &str, job: Job) -> Errand {
    Errand { service: name(service), generation: "g".to_owned(), job }
}

fn asked(service: &str, addresses: &[SocketAddr], timeout: Duration) -> Errand {
    let version = |version| VersionName::new(version).unwrap();
    let about = About { service: name(service), stable: version("v1"), canary: version("v2"), weight: 1_000 };
    let webhook = |address: &SocketAddr| Webhook {
        kind: WebhookKind::ConfirmPromotion,
        url: format!("http://{address}/approve?who=tidegate"),
        timeout,
    };
    let webhooks = addresses.iter().map(webhook).collect();
    errand(service, Job::Ask { kind: WebhookKind::ConfirmPromotion, webhooks, about: Box::new(about) })
}

fn measured(service: &str, metric: &str, address: SocketAddr) -> Errand {
    let (metric, query) = (metric.to_owned(), "up".to_owned());
    errand(service, Job::Measure { metric, address: format!("http://{address}"), query })
}

/// The task, with an inbox to look into.
struct Bench {
    errands: mpsc::Sender<Errand>,
    inbox: mpsc::Receiver<Input>,
    tasks: JoinSet<()>,
}

impl Bench {
    fn new() -> Self {
        let (errands, receiver) = mpsc::channel(256);
        let (sender, inbox) = mpsc::channel(256);
        let mut tasks = JoinSet::new();
        tasks.spawn(run(receiver, sender, CancellationToken::new()));
        Self { errands, inbox, tasks }
    }

    async fn answer(&mut self) -> Input {
        tokio::time::timeout(SOON, self.inbox.recv()).await.expect("an answer in time").expect("the task lives")
    }
}

#[tokio::test]
async fn a_webhook_agrees_with_a_2xx_and_is_told_what_it_is_about() {
    let mut bench = Bench::new();
    let (address, mut heard) = server(&mut bench.tasks, answer("204 No Content", "")).await;
    bench.errands.send(asked("shop", &[address, address], SOON)).await.unwrap();
    let Input::Hooked { service, generation, kind, answer } = bench.answer().await else { panic!() };
    assert_eq!((service, generation.as_str(), kind), (name("shop"), "g", WebhookKind::ConfirmPromotion));
    assert_eq!(answer, Ok(()));
    for _ in 0..2 {
        let request = heard.recv().await.unwrap();
        assert!(request.starts_with("POST /approve?who=tidegate HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("content-type: application/json"), "{request}");
        let (_, body) = request.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let about = json!({ "service": "shop", "stable": "v1", "canary": "v2", "weight": 1_000 });
        assert_eq!(body, json!({ "type": "confirm-promotion", "rollout": about }));
    }
}

#[tokio::test]
async fn what_is_no_agreement_says_why() {
    let mut tasks = JoinSet::new();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let large = "x".repeat(MAX_BODY + 1);
    for (answer, said) in [
        (answer("503 Service Unavailable", "not\nyet"), "answered 503: not yet"),
        (answer("302 Found", ""), "answered 302, and redirects are not followed"),
        (answer("200 OK", &large), "is larger than 64 KiB"),
        (Some("nonsense\r\n\r\n".to_owned()), "broke off"),
        (Some(String::new()), "broke off"),
        (None, "within 200ms"),
    ] {
        let (address, _heard) = server(&mut tasks, answer).await;
        let found = ask(&format!("http://{address}/"), Duration::from_millis(200), &json!({})).await.expect_err(said);
        assert!(found.contains(said) && found.contains(&address.to_string()), "{said}: {found}");
    }
    let found = ask(&format!("http://{gone}"), SOON, &json!({})).await.unwrap_err();
    assert!(found.contains("Connection refused"), "{found}");
}

#[tokio::test]
async fn one_refusal_is_enough_for_a_refusal() {
    let mut bench = Bench::new();
    let (yes, _) = server(&mut bench.tasks, answer("200 OK", "ok")).await;
    let (no, mut heard) = server(&mut bench.tasks, answer("403 Forbidden", "wait for Monday")).await;
    bench.errands.send(asked("shop", &[yes, no, yes], SOON)).await.unwrap();
    let Input::Hooked { answer, .. } = bench.answer().await else { panic!() };
    assert_eq!(answer, Err(format!("http://{no} answered 403: wait for Monday")));
    assert!(heard.recv().await.is_some());
}

#[tokio::test]
async fn a_query_has_one_number_or_a_reason() {
    let mut tasks = JoinSet::new();
    let vector = |values: &str| {
        answer(
            "200 OK",
            &format!("{{\"status\":\"success\",\"data\":{{\"resultType\":\"vector\",\"result\":[{values}]}}}}"),
        )
    };
    let scalar = "{\"status\":\"success\",\"data\":{\"resultType\":\"scalar\",\"result\":[1.5,\"-2.5\"]}}";
    let one = "{\"metric\":{},\"value\":[1435781451.781,\"0.25\"]}";
    let nan = "{\"metric\":{},\"value\":[1435781451.781,\"NaN\"]}";
    for (answer, expected) in [
        (vector(one), Ok(0.25)),
        (answer("200 OK", scalar), Ok(-2.5)),
        (vector(""), Err("the query has no value")),
        (vector(&format!("{one},{one}")), Err("the query has 2 values, and one is needed")),
        (vector(nan), Err("the query's value is NaN")),
        (answer("200 OK", "{\"data\":{\"resultType\":\"matrix\",\"result\":[]}}"), Err("a range of values")),
        (answer("200 OK", "<html>"), Err("not JSON as Prometheus writes it")),
        (answer("400 Bad Request", "{\"status\":\"error\",\"error\":\"parse error\"}"), Err("answered 400: {")),
    ] {
        let (address, mut heard) = server(&mut tasks, answer).await;
        let found = query(&format!("http://{address}/prefix/"), "sum(rate(a{b=\"c\"}[1m])) + 1", SOON).await;
        match (&found, expected) {
            (Ok(number), Ok(expected)) => assert!((number - expected).abs() < 1e-9, "{number}"),
            (Err(reason), Err(said)) => assert!(reason.contains(said), "{said}: {reason}"),
            _ => panic!("{expected:?}: {found:?}"),
        }
        let request = heard.recv().await.unwrap();
        let line =
            "GET /prefix/api/v1/query?query=sum%28rate%28a%7Bb%3D%22c%22%7D%5B1m%5D%29%29%20%2B%201 HTTP/1.1\r\n";
        assert!(request.starts_with(line), "{request}");
    }
}

#[tokio::test]
async fn what_hangs_holds_up_nothing_else() {
    let mut bench = Bench::new();
    let (hangs, mut heard) = server(&mut bench.tasks, None).await;
    let (quick, _) = server(&mut bench.tasks, answer("200 OK", "")).await;
    bench.errands.send(asked("slow", &[hangs], Duration::from_mins(1))).await.unwrap();
    heard.recv().await.unwrap();
    // Of the same service it waits, as it is asked now; of others, and for other things of the same service, nobody waits.
    for errand in [
        asked("slow", &[hangs], Duration::from_mins(1)),
        asked("slow", &[hangs], Duration::from_mins(1)),
        measured("slow", "carts", quick),
        asked("shop", &[quick], SOON),
    ] {
        bench.errands.send(errand).await.unwrap();
    }
    let mut answers = vec![bench.answer().await, bench.answer().await];
    answers.sort_by_key(|answer| matches!(answer, Input::Hooked { .. }));
    let [Input::Measured { metric, result: Err(_), .. }, Input::Hooked { service, answer: Ok(()), .. }] = &answers[..]
    else {
        panic!("{answers:?}")
    };
    assert_eq!((metric.as_str(), service), ("carts", &name("shop")));
    assert!(heard.try_recv().is_err(), "the one that hangs was asked once");
}

#[tokio::test]
async fn sixteen_are_under_way_at_once() {
    let mut bench = Bench::new();
    let (hangs, mut heard) = server(&mut bench.tasks, None).await;
    for n in 0..AT_ONCE {
        bench.errands.send(asked(&format!("s{n}"), &[hangs], Duration::from_secs(1))).await.unwrap();
    }
    for _ in 0..AT_ONCE {
        heard.recv().await.unwrap();
    }
    let (quick, _) = server(&mut bench.tasks, answer("200 OK", "")).await;
    bench.errands.send(asked("next", &[quick], SOON)).await.unwrap();
    // Each of the sixteen costs its timeout, and then it is the next one's turn.
    let mut agreed = 0;
    for _ in 0..=AT_ONCE {
        let Input::Hooked { service, answer, .. } = bench.answer().await else { panic!() };
        agreed += usize::from(answer.is_ok());
        assert_eq!(answer.is_ok(), service == name("next"), "{service}: {answer:?}");
    }
    assert_eq!(agreed, 1);
}

#[test]
fn a_question_that_waits_is_asked_once_and_the_first_free_lane_is_next() {
    let address = "127.0.0.1:1".parse().unwrap();
    let mut queue = Queue::default();
    for errand in [measured("a", "m", address), measured("b", "m", address), measured("a", "m", address)] {
        queue.put(errand);
    }
    assert_eq!(queue.waiting.len(), 2);
    let (first, _) = queue.next().unwrap();
    queue.put(measured("a", "m", address));
    let (second, _) = queue.next().unwrap();
    assert_eq!(
        (&first, &second),
        (&Lane::Measure(name("a"), "m".to_owned()), &Lane::Measure(name("b"), "m".to_owned()))
    );
    assert!(queue.next().is_none(), "what waits is of a service that is busy");
    queue.busy.remove(&first);
    assert!(queue.next().is_some());
}
