use super::*;
use crate::testing::service;

const START: Timestamp = Timestamp::from_millis(1_000_000);

fn after(millis: u64) -> Timestamp {
    START.after(Duration::from_millis(millis))
}

fn version(name: &str) -> VersionName {
    VersionName::new(name).unwrap()
}

fn run(container: &str, began: &str) -> InstanceId {
    InstanceId {
        container: container.to_owned(),
        started_at: format!("2026-01-01T00:00:{began}Z"),
        network: "bridge".to_owned(),
        address: ([172, 17, 0, 2], 80).into(),
    }
}

fn owner(container: &str, of: &str, at: &str) -> Owner {
    Owner { container: container.to_owned(), service: service(of), version: version(at) }
}

/// `a` of `shop/v1` was published and has left.
fn left(at: Timestamp) -> Addresses {
    let mut addresses = Addresses::default();
    let address = run("a", "00").address;
    addresses.publish(address, owner("a", "shop", "v1"));
    addresses.committed(Some(1));
    addresses.unpublish(address, owner("a", "shop", "v1"), at);
    addresses
}

#[test]
fn a_newcomer_waits_until_the_edges_have_accepted_that_the_last_owner_left() {
    let mut addresses = left(START);
    let newcomer = run("b", "05");
    addresses.arrive(&newcomer, &service("cart"), &version("v1"), after(5));
    assert_eq!(addresses.held(&newcomer).map(|held| &held.old), Some(&owner("a", "shop", "v1")));
    assert!(addresses.release(after(6)).is_empty(), "not even committed");
    addresses.committed(Some(7));
    addresses.accepted(6);
    assert!(addresses.release(after(7)).is_empty());
    addresses.accepted(7);
    assert_eq!(addresses.release(after(8)), [service("cart")].into());
    assert!(addresses.held(&newcomer).is_none());
    let late = run("c", "06");
    addresses.arrive(&late, &service("cart"), &version("v1"), after(9));
    assert!(addresses.held(&late).is_none(), "nobody has the old one any more");
}

#[test]
fn it_waits_two_seconds_at_most_and_half_a_minute_later_nobody_remembers() {
    let mut addresses = left(START);
    addresses.committed(Some(7));
    let newcomer = run("b", "05");
    addresses.arrive(&newcomer, &service("cart"), &version("v1"), after(100));
    assert_eq!(addresses.deadline(), Some(after(2_100)));
    assert!(addresses.release(after(2_099)).is_empty());
    assert_eq!(addresses.release(after(2_100)), [service("cart")].into());
    let late = run("c", "06");
    addresses.arrive(&late, &service("cart"), &version("v1"), after(30_000));
    assert!(addresses.held(&late).is_none());
    addresses.release(after(30_000));
    assert!(addresses.former.is_empty() && addresses.left.is_empty(), "{addresses:?}");
}

#[test]
fn another_version_waits_and_the_next_run_of_the_same_one_does_not() {
    for (container, of, at, waits) in [
        ("b", "shop", "v2", true),
        ("b", "cart", "v1", true),
        ("b", "shop", "v1", false),
        // One container behind two services, started again.
        ("a", "cart", "v1", false),
        ("file:x", "cart", "v1", false),
    ] {
        let mut addresses = left(START);
        let newcomer = run(container, "05");
        addresses.arrive(&newcomer, &service(of), &version(at), after(5));
        assert_eq!(addresses.held(&newcomer).is_some(), waits, "{container} of {of}/{at}");
    }
}

#[test]
fn an_address_that_is_still_published_is_not_free() {
    let mut addresses = Addresses::default();
    let newcomer = run("b", "05");
    addresses.publish(newcomer.address, owner("a", "shop", "v1"));
    addresses.accepted(100);
    addresses.arrive(&newcomer, &service("cart"), &version("v1"), START);
    assert!(addresses.release(after(1)).is_empty());
    addresses.unpublish(newcomer.address, owner("a", "shop", "v1"), after(2));
    assert!(addresses.release(after(3)).is_empty());
    addresses.committed(None);
    assert_eq!(addresses.release(after(4)), [service("cart")].into(), "it was published nowhere after all");
}

#[test]
fn the_run_that_began_last_has_the_address() {
    let mut addresses = Addresses::default();
    let (old, new) = (run("a", "05.9"), run("b", "05.91"));
    assert!(addresses.claim(&ProviderName::docker(), &old, &service("shop")).is_empty());
    assert_eq!(
        addresses.claim(&ProviderName::docker(), &new, &service("cart")),
        [service("cart"), service("shop")].into()
    );
    assert_eq!(addresses.successor(&old), Some(&new));
    assert_eq!(addresses.successor(&new), None);
    assert_eq!(addresses.waive(&new), [service("shop")].into());
    assert_eq!(addresses.successor(&old), None);
    addresses.waive(&old);
    assert!(addresses.claimed.is_empty());
    let elsewhere = InstanceId { network: "other".to_owned(), ..run("c", "07") };
    addresses.claim(&ProviderName::docker(), &old, &service("shop"));
    assert!(
        addresses.claim(&ProviderName::docker(), &elsewhere, &service("cart")).is_empty(),
        "two networks may have the same addresses"
    );
}

#[test]
fn engines_with_networks_of_one_name_do_not_take_from_each_other() {
    let mut addresses = Addresses::default();
    let (old, new) = (run("a", "05"), run("b", "06"));
    addresses.claim(&ProviderName::docker_engine("one"), &old, &service("shop"));
    addresses.claim(&ProviderName::docker_engine("two"), &new, &service("cart"));
    assert_eq!((addresses.successor(&old), addresses.successor(&new)), (None, None));
}
