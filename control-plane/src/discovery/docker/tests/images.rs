//! What a container has from its image is told apart from its own.

use super::*;

const OF_IMAGE: &[(&str, &str)] = &[("tidegate.enable", "true"), ("tidegate.host", "evil.localhost")];

impl Bench {
    /// An engine with these containers, whose image says [`OF_IMAGE`], and a provider that does not believe it.
    fn distrusting(containers: &[(&str, &[(&str, &str)])]) -> Self {
        let placement = Placement { distrusts_images: true, ..Placement::default() };
        let bench = Self::placed(containers, placement);
        bench.fake.engine().image("fake", OF_IMAGE);
        bench
    }

    fn images_read(&self) -> usize {
        self.fake.engine().requests.iter().filter(|request| request.contains("/images/")).count()
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_image_says_is_not_believed_and_is_read_once() {
    let own: &[(&str, &str)] = &[("tidegate.enable", "true"), ("tidegate.svc.api.host", "own.localhost")];
    let mut bench = Bench::distrusting(&[("a", OF_IMAGE), ("b", own), ("c", OF_IMAGE)]);
    bench.fake.listen();
    bench.until("the first reset", |bench| bench.resets == 1).await;
    for id in ["a", "b", "c"] {
        let discovered = &bench.seen[id];
        assert!(!discovered.enabled && discovered.memberships.is_empty(), "{discovered:#?}");
        assert_eq!(discovered.problems[0].code, Code::ImageLabels);
    }
    assert_eq!(bench.images_read(), 1, "three containers of one image");
    // An image that says something else of it leaves it to the container.
    bench.fake.engine().image("fake", &[]);
    bench.fake.engine().cut();
    bench.until("another session", |bench| bench.resets == 2).await;
    bench.until("the instances", |bench| bench.instances("a") == 1 && bench.instances("b") == 1).await;
    assert_eq!(bench.images_read(), 2);
}

#[tokio::test(start_paused = true)]
async fn while_its_image_is_not_known_a_newcomer_is_held_and_what_was_known_stays() {
    let mut bench = Bench::distrusting(&[("old", &[("tidegate.enable", "true")])]);
    bench.fake.engine().image("fake", &[]);
    bench.fake.listen();
    bench.until("the first reset", |bench| bench.resets == 1).await;
    assert_eq!(bench.instances("old"), 1);
    // Another connection knows no image yet.
    bench.fake.engine().faults.answers.insert(Call::Image, Answer::Status(403, "not allowed"));
    bench.fake.engine().cut();
    bench.fake.engine().run(Spec::new("new", &[("tidegate.enable", "true"), ("tidegate.host", "a.localhost")]));
    bench.until("the problems", |bench| bench.problems.len() == 2).await;
    assert_eq!(bench.codes(), [Code::InspectFailed, Code::InspectFailed]);
    let problem = &bench.problems[0];
    assert!(problem.reason.contains("the inspection of its image: HTTP 403: not allowed"), "{problem}");
    assert!(problem.cure.contains("providers.docker.trustImageLabels"), "{problem}");
    assert_eq!((bench.instances("old"), bench.instances("new")), (1, 0));
    assert!(bench.seen.get("new").is_none_or(|new| new.memberships.is_empty()), "nothing is guessed");
    bench.fake.engine().faults.answers.clear();
    bench.until("the newcomer", |bench| bench.instances("new") == 1 && bench.problems.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn where_images_are_trusted_none_is_read() {
    let bench = Bench::new(&[("a", OF_IMAGE)]).await;
    assert_eq!((bench.instances("a"), bench.images_read()), (1, 0));
}
