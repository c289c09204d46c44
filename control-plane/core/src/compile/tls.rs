//! TLS from an edge to instances: whether, and by whom, their certificates are verified.

use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType;
use envoy_types::pb::envoy::config::core::v3::{DataSource, TransportSocket};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SubjectAltNameMatcher, UpstreamTlsContext,
};
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::util::pack_any;

use crate::config::ServiceTls;

/// Encrypted. Without authorities nothing is verified: a container has its certificate from nobody whom an edge could know.
pub(super) fn upstream(authorities: Option<&ServiceTls>) -> TransportSocket {
    let context = authorities.map_or_else(UpstreamTlsContext::default, |tls| UpstreamTlsContext {
        sni: tls.server_name.clone().filter(|name| name.parse::<IpAddr>().is_err()).unwrap_or_default(),
        common_tls_context: Some(CommonTlsContext {
            validation_context_type: Some(ValidationContextType::ValidationContext(validation(tls))),
            ..CommonTlsContext::default()
        }),
        ..UpstreamTlsContext::default()
    });
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(ConfigType::TypedConfig(pack_any(context))),
    }
}

/// The authorities themselves, not their file, which an edge elsewhere does not have.
fn validation(tls: &ServiceTls) -> CertificateValidationContext {
    let name = tls.server_name.as_ref().map(|name| SubjectAltNameMatcher {
        san_type: if name.parse::<IpAddr>().is_ok() { SanType::IpAddress } else { SanType::Dns } as i32,
        matcher: Some(StringMatcher {
            match_pattern: Some(MatchPattern::Exact(name.clone())),
            ..StringMatcher::default()
        }),
        ..SubjectAltNameMatcher::default()
    });
    CertificateValidationContext {
        trusted_ca: Some(DataSource {
            specifier: Some(Specifier::InlineString(tls.authorities.clone())),
            ..DataSource::default()
        }),
        match_typed_subject_alt_names: name.into_iter().collect(),
        ..CertificateValidationContext::default()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn compiled(tls: Option<&ServiceTls>) -> UpstreamTlsContext {
        let Some(ConfigType::TypedConfig(context)) = upstream(tls).config_type else { panic!("it is typed") };
        UpstreamTlsContext::decode(&*context.value).unwrap()
    }

    #[test]
    fn certificates_are_verified_where_authorities_are_named_and_nowhere_else() {
        assert_eq!(compiled(None), UpstreamTlsContext::default());
        for (name, sni, san) in [
            (None, "", None),
            (Some("shop.internal"), "shop.internal", Some(SanType::Dns)),
            // RFC 6066, 3: no address is told as a name.
            (Some("10.0.0.1"), "", Some(SanType::IpAddress)),
        ] {
            let server_name = name.map(str::to_owned);
            let tls = ServiceTls { ca: "ca.pem".to_owned(), server_name, authorities: "PEM".to_owned() };
            let context = compiled(Some(&tls));
            assert_eq!(context.sni, sni);
            let common = context.common_tls_context.unwrap();
            let Some(ValidationContextType::ValidationContext(verified)) = common.validation_context_type else {
                panic!("{common:?}")
            };
            assert_eq!(verified.trusted_ca.unwrap().specifier, Some(Specifier::InlineString("PEM".to_owned())));
            let sans: Vec<_> = verified.match_typed_subject_alt_names.iter().map(|san| san.san_type).collect();
            assert_eq!(sans, san.into_iter().map(|san| san as i32).collect::<Vec<_>>());
        }
    }
}
