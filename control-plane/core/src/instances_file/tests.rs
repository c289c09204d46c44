//! Files in, entries and problems out.

use proptest::prelude::*;

use super::*;
use crate::instance::{CheckKind, HeaderMatch, HttpCheck, Statuses};

fn one(text: &str) -> Entry {
    let reading = read("shop.yaml", text).unwrap();
    assert_eq!(reading.problems, [], "{text}");
    let [(_, entry)] = reading.entries.as_slice() else { panic!("{:?}", reading.entries) };
    entry.clone()
}

fn told(text: &str) -> Vec<String> {
    let problems = match read("shop.yaml", text) {
        Ok(reading) => reading.problems,
        Err(problem) => vec![problem],
    };
    problems.iter().map(|p| format!("{} {} | {} | {}", p.code, p.subject, p.reason, p.cure)).collect()
}

#[test]
fn every_word_says_what_it_says() {
    let entry = one(r#"
- service: shop
  version: 1.10
  name: left
  host: [ Shop.localhost, www.shop.localhost ]
  path: /api
  address: "127.0.0.1:9001"
  check: { type: http, port: 9002, path: /ready, host: shop.localhost, status: 204, header: "x-ready: yes", body: up,
           interval: 500ms, timeout: 300ms, rise: 1, fall: 3, grace: 10s }
  drain: 30s
"#);
    assert_eq!(entry.id.to_string(), "shop/1.10@127.0.0.1:9001", "a version is the text as written");
    assert_eq!(entry.name, "left");
    assert_eq!(entry.claim.hosts, ["shop.localhost", "www.shop.localhost"]);
    assert_eq!(entry.claim.path, "/api");
    let check = Check {
        kind: CheckKind::Http(HttpCheck {
            path: "/ready".to_owned(),
            host: Some("shop.localhost".to_owned()),
            status: Statuses(vec![204..=204]),
            header: Some(HeaderMatch { name: "x-ready".to_owned(), value: Some("yes".to_owned()) }),
            body: Some("up".to_owned()),
        }),
        address: Some("127.0.0.1:9002".parse().unwrap()),
        interval: Duration::from_millis(500),
        timeout: Duration::from_millis(300),
        rise: 1,
        fall: 3,
        grace: Duration::from_secs(10),
    };
    assert_eq!((entry.check, entry.drain), (check, Duration::from_secs(30)));
}

#[test]
fn a_service_and_an_address_are_enough() {
    let entry = one("- { service: shop, address: '[::1]:80' }");
    assert_eq!((entry.name.as_str(), entry.check), ("shop/default@[::1]:80", Check::default()));
    assert_eq!(entry.claim, Claim { hosts: Vec::new(), path: "/".to_owned() });
    let text = "- { service: shop, host: 'a.localhost, b.localhost', address: '10.0.0.1:80' }";
    assert_eq!(one(text).claim.hosts, ["a.localhost", "b.localhost"], "one text, as a label has it");
    for empty in ["", "[]", "# nothing\n"] {
        assert_eq!(read("f", empty), Ok(Reading::default()), "{empty:?}");
    }
}

#[test]
fn an_entry_is_an_instance_that_keeps_its_identity() {
    let entry = one("- { service: shop, version: v1, host: shop.localhost, address: '127.0.0.1:9001' }");
    let hint = Hint { action: "shop.yaml:1:3".to_owned(), at: Timestamp::from_millis(7) };
    let discovered = entry.discovered(Timestamp::default(), hint, Timestamp::from_millis(8));
    assert_eq!(discovered.id, "file:shop/v1@127.0.0.1:9001");
    assert_eq!(discovered.subject(), "entry shop/v1@127.0.0.1:9001");
    assert_eq!(discovered.instances[0].id.to_string(), "shop/v1@127.0.0.1:9001");
    let named = Entry { name: "left".to_owned(), ..entry };
    let named = named.discovered(discovered.created, discovered.hint.clone(), discovered.observed_at);
    assert_eq!(named.subject(), "entry left (shop/v1@127.0.0.1:9001)");
    assert_eq!(named.instances, discovered.instances, "the name is no part of the identity");
}

#[test]
fn every_mistake_is_told_with_its_place_and_a_cure() {
    let text = r#"- { service: shop, address: "127.0.0.1:9001", hots: x }
- { service: shop, address: localhost:9001 }
- { service: shop, address: "127.0.0.1:0" }
- { service: shop, address: "0.0.0.0:80" }
- { service: shop, address: 9001 }
- { service: "sh/op", version: "", address: "127.0.0.1:9002" }
- { service: shop }
- shop
- { service: shop, address: "127.0.0.1:9003", host: "a b", path: api, drain: 5 }
- service: shop
  address: 127.0.0.1:9004
  check:
    type: docker
    path: /x
    intervall: 2s
    rise: 0
"#;
    assert_eq!(
        told(text),
        [
            "TG0122 shop.yaml:1:47 | there is no key `hots` in an entry | did you mean `host`?",
            "TG0122 shop.yaml:2:29 | `address`: \"localhost:9001\" names a host, and names are not looked up | write IP:PORT, such as \"127.0.0.1:9001\"",
            "TG0122 shop.yaml:3:29 | `address`: \"127.0.0.1:0\" has no port | write IP:PORT, such as \"127.0.0.1:9001\"",
            "TG0122 shop.yaml:4:29 | `address`: \"0.0.0.0:80\" is not the address of one instance | write IP:PORT, such as \"127.0.0.1:9001\"",
            "TG0122 shop.yaml:5:29 | `address`: \"9001\" is not an address | write IP:PORT, such as \"127.0.0.1:9001\"",
            "TG0122 shop.yaml:6:14 | \"sh/op\" cannot be the name of a service: '/' is not allowed there: a name is letters, digits, `.`, `_` and `-`, and begins with a letter or digit | use another name",
            "TG0122 shop.yaml:6:32 | \"\" cannot be the name of a version: it is empty | use another name",
            "TG0122 shop.yaml:7:3 | an entry needs `service` and `address` | write { service: shop, address: \"127.0.0.1:9001\" }",
            "TG0122 shop.yaml:8:3 | an entry is a single value, not a mapping | write `key: value` lines below it",
            "TG0122 shop.yaml:9:53 | `host`: \"a b\" is not a host name | write host names such as `shop.example.com`, separated by commas",
            "TG0122 shop.yaml:9:66 | `path`: \"api\" does not begin with `/` | write a prefix such as `/` or `/api`",
            "TG0122 shop.yaml:9:78 | `drain`: \"5\" has no unit: write `5s` or `5ms` | use a duration such as `500ms` or `2s`",
            "TG0122 shop.yaml:15:5 | there is no key `intervall` in `check` | did you mean `interval`?",
            "TG0122 shop.yaml:13:11 | `check.type`: it is `docker`, but this is no container | use tcp, http, https, grpc or none",
            "TG0122 shop.yaml:16:11 | `check.rise`: \"0\" is not a whole number from 1 to 100 | write a number such as `2`",
        ]
    );
}

#[test]
fn a_file_that_is_no_list_is_one_problem() {
    let syntax = told("- { service: [\n");
    assert_eq!(syntax.len(), 1, "{syntax:?}");
    assert!(syntax[0].starts_with("TG0121 shop.yaml:") && syntax[0].contains("this is not YAML"), "{syntax:?}");
    assert_eq!(
        told("service: shop\n"),
        [
            "TG0121 shop.yaml:1:1 | the file is a mapping, not a list of entries | write `- { service: shop, address: \"127.0.0.1:9001\" }` lines"
        ]
    );
}

#[test]
fn a_bad_entry_leaves_out_itself_alone_and_says_what_it_could_be() {
    let text = "
- { service: shop, version: v1, address: '127.0.0.1:9001' }
- { service: shop, version: v1, address: '127.0.0.1:9002', chekc: {} }
- { service: shop, version: v1, address: nowhere }
- { service: cart, version: v1, address: '127.0.0.1:9003' }
";
    let reading = read("f", text).unwrap();
    let ids: Vec<String> = reading.entries.iter().map(|(_, entry)| entry.id.to_string()).collect();
    assert_eq!(ids, ["shop/v1@127.0.0.1:9001", "cart/v1@127.0.0.1:9003"]);
    let [known, partly] = reading.unclear.as_slice() else { panic!("{:?}", reading.unclear) };
    let id = |service: &str, port: u16| EntryId {
        service: ServiceName::new(service).unwrap(),
        version: VersionName::new("v1").unwrap(),
        address: ([127, 0, 0, 1], port).into(),
    };
    assert!(known.could_be(&id("shop", 9002)) && !known.could_be(&id("shop", 9001)));
    assert!(partly.could_be(&id("shop", 1)) && !partly.could_be(&id("cart", 1)));
    assert!(Unclear::default().could_be(&id("cart", 1)), "of what is no mapping nothing is known");
}

#[test]
fn the_same_entry_twice_is_a_problem_and_the_first_stays() {
    let text =
        "- { service: shop, name: a, address: '127.0.0.1:1' }\n- { service: shop, name: b, address: '127.0.0.1:1' }\n";
    assert_eq!(
        told(text),
        [
            "TG0123 shop.yaml:2:3 | `shop/default@127.0.0.1:1` stands at shop.yaml:1:3 already | remove one of the two, or give this one another address, version or service"
        ]
    );
    let reading = read("shop.yaml", text).unwrap();
    assert_eq!((reading.entries.len(), reading.entries[0].1.name.as_str()), (1, "a"));
}

#[test]
fn a_flood_of_mistakes_is_counted() {
    let reading = read("f", &"- { service: shop }\n".repeat(250)).unwrap();
    assert_eq!((reading.problems.len(), reading.unclear.len()), (101, 250));
    assert_eq!(reading.problems[100].reason, "150 more problems are not shown");
}

/// Ten thousand services of ten instances, with plain numbers in them.
#[test]
fn a_large_file_is_read_whole() {
    let mut text = String::new();
    for entry in 0..20_000 {
        let (service, ip) = (entry / 10, entry % 10);
        text.push_str(&format!(
            "- {{ service: s{service}, host: s{service}.localhost, address: \"10.0.0.{ip}:80\", check: {{ type: none, rise: 2 }} }}\n"
        ));
    }
    let reading = read("f", &text).unwrap();
    assert_eq!((reading.entries.len(), reading.problems.len()), (20_000, 0));
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = read("f", &text);
    }

    #[test]
    fn no_structured_text_panics_and_every_item_is_accounted_for(
        lines in proptest::collection::vec(
            "- \\{ (service|version|host|path|address|check|drain|name|x): ?[a-z0-9.:/{}\\[\\]\"' -]{0,16}(, address: \"10.0.0.[0-9]:80\")? \\}",
            0..8,
        )
    ) {
        if let Ok(reading) = read("f", &lines.join("\n")) {
            prop_assert!(reading.unclear.is_empty() || !reading.problems.is_empty());
            let ids: std::collections::BTreeSet<_> = reading.entries.iter().map(|(_, entry)| &entry.id).collect();
            prop_assert_eq!(ids.len(), reading.entries.len());
        }
    }
}
