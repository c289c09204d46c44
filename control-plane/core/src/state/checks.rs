//! How an instance is checked: as it says itself, and where the configuration names the authorities of its service, by them.

use std::sync::Arc;

use super::{ProbeChange, State};
use crate::ServiceName;
use crate::config::{Config, ServiceTls};
use crate::instance::{Check, CheckKind, CheckTls, Instance};

impl State {
    /// What has the prober check `instance`.
    pub(super) fn watch(&self, instance: Instance) -> ProbeChange {
        let check = by(authorities(&self.config, &instance.service), instance.check);
        ProbeChange::Watch { id: instance.id, check: Box::new(check) }
    }

    /// What has the prober check anew those whose authorities are others than in `old`.
    pub(super) fn watch_again(&self, old: &Config) -> Vec<ProbeChange> {
        let same = |service: &ServiceName| authorities(old, service) == authorities(&self.config, service);
        let instances = self.catalog.containers().flat_map(|container| container.checkable());
        let concerned = instances.filter(|instance| is_concerned(&instance.check) && !same(&instance.service));
        concerned.map(|instance| self.watch(instance.clone())).collect()
    }
}

fn authorities<'a>(config: &'a Config, service: &ServiceName) -> Option<&'a Arc<ServiceTls>> {
    config.services.get(service)?.tls.as_ref()
}

/// A check that looks at no certificate stays one.
fn is_concerned(check: &Check) -> bool {
    matches!(check.kind, CheckKind::Https { tls: CheckTls::Verify, .. })
}

fn by(authorities: Option<&Arc<ServiceTls>>, mut check: Check) -> Check {
    if is_concerned(&check)
        && let (CheckKind::Https { tls, .. }, Some(authorities)) = (&mut check.kind, authorities)
    {
        *tls = CheckTls::Issued(Arc::clone(authorities));
    }
    check
}
