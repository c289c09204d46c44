//! One client's side of an aggregated stream: acknowledges everything, follows clusters with subscriptions to their
//! endpoints as Envoy does, and notes when what arrived. It looks no further into a response than it must.

use std::rc::Rc;
use std::sync::Arc;

use tidegate_xds::ResourceType;

use crate::plan::{Endpoints, Plan, RUNTIME_LAYER, Variant, name_field, number};
use crate::tally::Tally;
use crate::wire::{self, Field, Fields, put};

// Fields that both responses have; `Resource` and `Any` both have their content in field 2.
const VERSION: u64 = 1;
const RESOURCES: u64 = 2;
const TYPE_URL: u64 = 4;
const NONCE: u64 = 5;

#[derive(Debug)]
pub(crate) struct Ads {
    stream: usize,
    plan: Rc<Plan>,
    tally: Arc<Tally>,
    /// What is still to come of clusters, endpoints and runtime, until the stream is synced.
    missing: Option<[Missing; 3]>,
    /// Nonce and version of the last endpoints, which a state-of-the-world request repeats.
    endpoints: (Vec<u8>, Vec<u8>),
    /// The newest commit that a load has brought.
    newest: Option<u64>,
    /// What is to be sent.
    pub(crate) replies: Vec<Vec<u8>>,
}

/// A set of services, by number.
#[derive(Debug)]
struct Missing {
    seen: Vec<u64>,
    left: usize,
}

impl Missing {
    fn take(&mut self, service: usize) {
        let Some(word) = self.seen.get_mut(service / 64) else { return };
        let bit = 1 << (service % 64);
        if *word & bit == 0 {
            *word |= bit;
            self.left = self.left.saturating_sub(1);
        }
    }
}

impl Ads {
    pub(crate) fn new(stream: usize, plan: Rc<Plan>, tally: Arc<Tally>) -> Self {
        // Room for a few more names than services: a case may publish some on the side.
        let words = plan.services / 64 + 2;
        let missing = plan.expected().map(|left| Missing { seen: vec![0; if left > 0 { words } else { 0 }], left });
        let replies = plan.opening(stream);
        Self { stream, plan, tally, missing: Some(missing), endpoints: Default::default(), newest: None, replies }
    }

    /// Takes a response that was read at `now`, in nanoseconds of the monotonic clock.
    pub(crate) fn on_message(&mut self, message: &[u8], now: u64) {
        let (mut version, mut type_url, mut nonce, mut resources) = (&[][..], &[][..], &[][..], 0_u64);
        for field in Fields(message) {
            match field {
                (VERSION, Field::Bytes(it)) => version = it,
                (RESOURCES, _) => resources += 1,
                (TYPE_URL, Field::Bytes(it)) => type_url = it,
                (NONCE, Field::Bytes(it)) => nonce = it,
                _ => {}
            }
        }
        let resource_type = std::str::from_utf8(type_url).ok().and_then(ResourceType::from_type_url);
        let Some(resource_type) = resource_type else { return self.tally.broken() };
        self.tally.response(resources);
        if self.plan.record {
            self.record(message, resource_type);
        }
        self.answer(resource_type, message, nonce, version);

        if self.missing.is_some() {
            self.sync(resource_type, message);
        } else if resources > 0 && resource_type == self.plan.news {
            self.tally.news(now);
            if resource_type == ResourceType::Endpoint {
                self.measure(message, now);
            }
        }
    }

    fn sync(&mut self, resource_type: ResourceType, message: &[u8]) {
        let Some(missing) = &mut self.missing else { return };
        let of_type = match resource_type {
            ResourceType::Cluster => &mut missing[0],
            ResourceType::Endpoint => &mut missing[1],
            _ => &mut missing[2],
        };
        if of_type.left > 0 {
            for resource in resources(message) {
                of_type.take(number(self.plan.variant.name(resource)));
            }
        }
        if missing.iter().all(|it| it.left == 0) {
            self.missing = None;
            self.tally.synced();
        }
    }

    /// The lag of the oldest commit that concerns this stream and that this response is the first to cover.
    fn measure(&mut self, message: &[u8], now: u64) {
        let Some(load) = self.tally.load() else { return };
        let variant = self.plan.variant;
        let newest = resources(message).filter_map(|resource| load.commit(variant.any(resource)?)).max();
        let Some(newest) = newest else { return };
        let mut oldest = self.newest.map_or(0, |newest| newest + 1);
        while oldest < newest && !self.plan.concerns(self.stream, load.service(oldest)) {
            oldest += 1;
        }
        if oldest <= newest {
            self.newest = Some(newest);
            self.tally.lag(self.stream, newest, now.saturating_sub(load.due(oldest)));
        }
    }

    fn answer(&mut self, resource_type: ResourceType, message: &[u8], nonce: &[u8], version: &[u8]) {
        let plan = Rc::clone(&self.plan);
        let mut ack = Vec::new();
        let names = match (plan.variant, resource_type) {
            (Variant::StateOfTheWorld, ResourceType::Endpoint) => {
                self.endpoints = (nonce.to_vec(), version.to_vec());
                plan.names(self.stream)
            }
            (Variant::StateOfTheWorld, ResourceType::Runtime) => name_field(RUNTIME_LAYER).into(),
            _ => Vec::new().into(),
        };
        plan.put_request(resource_type, &names, Some((nonce, version)), &mut ack);
        self.replies.push(ack);

        // Envoy asks for the endpoints of clusters as soon as it has been told of them.
        if resource_type == ResourceType::Cluster && plan.endpoints == Endpoints::OfClusters && plan.held.is_none() {
            let mut request = Vec::new();
            match plan.variant {
                Variant::Delta => {
                    let mut names = Vec::new();
                    for resource in resources(message) {
                        put(3, plan.variant.name(resource), &mut names);
                    }
                    if names.is_empty() {
                        return;
                    }
                    plan.put_request(ResourceType::Endpoint, &names, None, &mut request);
                }
                Variant::StateOfTheWorld => {
                    let (nonce, version) = &self.endpoints;
                    let answered = (!nonce.is_empty()).then_some((nonce.as_slice(), version.as_slice()));
                    plan.put_request(ResourceType::Endpoint, &plan.names(self.stream), answered, &mut request);
                }
            }
            self.replies.push(request);
        }
    }

    fn record(&self, message: &[u8], resource_type: ResourceType) {
        let mut recorded = self.tally.recorded();
        recorded.messages.push(message.to_vec());
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let of_type = match resource_type {
            ResourceType::Cluster => &mut recorded.held.clusters,
            ResourceType::Endpoint => &mut recorded.held.endpoints,
            _ => return,
        };
        of_type.extend(resources(message).map(|it| (text(wire::bytes(it, 3)), text(wire::bytes(it, 1)))));
    }
}

impl Variant {
    /// The `Any` of what is in field 2 of a response: of a `Resource`, or itself.
    fn any(self, resource: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Delta => wire::bytes(resource, 2),
            Self::StateOfTheWorld => Some(resource),
        }
    }

    /// The name of what is in field 2 of a response: a `Resource`, or an `Any` whose content begins with its name.
    fn name(self, resource: &[u8]) -> &[u8] {
        let name = match self {
            Self::Delta => wire::bytes(resource, 3),
            Self::StateOfTheWorld => wire::bytes(resource, 2).and_then(|content| wire::bytes(content, 1)),
        };
        name.unwrap_or_default()
    }
}

fn resources(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    Fields(message).filter_map(|field| match field {
        (RESOURCES, Field::Bytes(resource)) => Some(resource),
        _ => None,
    })
}
