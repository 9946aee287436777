//! Builds the client: endpoint, region, credentials, trust, timeouts, retries.

use std::sync::Arc;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::interceptors::{
    AfterDeserializationInterceptorContextRef, BeforeDeserializationInterceptorContextRef,
    FinalizerInterceptorContextRef,
};
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Config, ConfigBag, Credentials, Intercept, Region, ResponseChecksumValidation, RuntimeComponents,
    SharedCredentialsProvider, SharedHttpClient,
};
use aws_sdk_s3::error::BoxError;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, OrchestratorError};
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction};
use jiff::SignedDuration;
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::config::StoreSettings;
use crate::env::Env;
use crate::file;
use crate::store::s3::bounded_http::{BoundedHttpClient, is_too_long};
use crate::store::s3::credentials::CredentialChain;
use crate::store::s3::error::{attempt_failure, is_bad_certificate, is_error_document};
use crate::store::{StoreError, StoreErrorKind};

/// How long a connection attempt may take. A server on another continent answers in a third of a second; one that takes
/// more than ten times as long is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one attempt may take in addition to the time for its bytes. S3 answers slow requests after some 20 s with
/// 503.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// The slowest transfer rate that is still waited for, in bytes per second.
const RATE_MIN: u64 = 64 * 1024;

/// Attempts of an idempotent call, the first included. With the delays below they bridge about 20 s.
pub(super) const ATTEMPTS_MAX: u32 = 6;

/// The first retry comes after up to this long (jittered); the delay doubles with each further one.
const BACKOFF_INITIAL: Duration = Duration::from_millis(500);

/// The longest delay before a retry: slots are minutes apart, and the caller has its own deadline.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// The default region of AWS's own tools; most S3-compatible servers accept it too.
const REGION_DEFAULT: &str = "us-east-1";

/// How long one attempt that carries `bytes` may take.
pub(super) fn attempt_timeout(bytes: u64) -> Duration {
    ATTEMPT_TIMEOUT.saturating_add(Duration::from_secs(bytes / RATE_MIN))
}

pub(super) fn timeouts(bytes: u64) -> TimeoutConfig {
    // No read timeout: it would count from the first byte sent, and each value of it has its own connection pool.
    TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_attempt_timeout(attempt_timeout(bytes)).build()
}

/// An HTTP client that removes `Date` from answers that do not look like a store's. The SDK takes from it the time to
/// sign requests with, and the store would refuse requests signed with a proxy's clock.
#[derive(Debug)]
struct ForeignDateFilter<T>(T);

impl HttpClient for ForeignDateFilter<SharedHttpClient> {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(ForeignDateFilter(self.0.http_connector(settings, components)))
    }
}

impl HttpConnector for ForeignDateFilter<SharedHttpConnector> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let mut answer = answer.await?;
            if !has_store_headers(&answer) {
                answer.headers_mut().remove("date");
            }
            Ok(answer)
        })
    }
}

/// Builds a client for `settings`; `clock` gets the server's time from each answer, and `troubles` the failures of
/// attempts.
pub(super) async fn connect(
    settings: &StoreSettings,
    name: &str,
    env: &Env,
    (clock, troubles): (ServerClock, LastAttemptError),
    given: Option<Credentials>,
) -> Result<Client, StoreError> {
    let plain = settings.endpoint.as_deref().is_some_and(|e| e.starts_with("http://"));
    let (http_client, https_client) = http_clients(settings, name, plain)?;
    let region = region(settings).await;
    let credentials = if let Some(given) = given {
        SharedCredentialsProvider::new(given)
    } else {
        let config = ProviderConfig::without_region().with_region(Some(region.clone())).with_http_client(https_client);
        SharedCredentialsProvider::new(CredentialChain::of(settings, &config))
    };
    let retries = RetryConfig::standard()
        .with_max_attempts(ATTEMPTS_MAX)
        .with_initial_backoff(BACKOFF_INITIAL)
        .with_max_backoff(BACKOFF_MAX);
    // Built from an empty config, not from the SDK's environment: the environment may give credentials and a region,
    // but no endpoint and no behaviour.
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(region)
        .credentials_provider(credentials)
        .http_client(SharedHttpClient::new(ForeignDateFilter(http_client)))
        .force_path_style(settings.path_style.unwrap_or(settings.endpoint.is_some()))
        .timeout_config(timeouts(0))
        .retry_config(retries)
        .retry_classifier(NoRetryOnBadCertificate)
        // Downloads are verified by the repository format itself.
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .interceptor(ClockInterceptor { clock, env: env.clone() })
        .interceptor(AttemptErrorInterceptor(troubles));
    let config = match &settings.endpoint {
        Some(endpoint) => config.endpoint_url(with_final_slash(endpoint)),
        None => config,
    };
    Ok(Client::from_conf(config.build()))
}

/// An endpoint with a path must end in a slash: the SDK appends the bucket's name directly to the path.
fn with_final_slash(endpoint: &str) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    let has_path = endpoint.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
    if has_path { format!("{endpoint}/") } else { endpoint.to_owned() }
}

/// The most that is read of a CA file.
const CA_FILE_MAX: u64 = 4 << 20;

/// Builds one HTTP client for the store and one for the providers of credentials, which need TLS even when the store
/// does not.
fn http_clients(
    settings: &StoreSettings,
    name: &str,
    plain: bool,
) -> Result<(SharedHttpClient, SharedHttpClient), StoreError> {
    let mut trust = TrustStore::default();
    if let Some(path) = &settings.ca_file {
        let bad = |why: String| {
            let detail = format!("ca_file {}: {why}", path.display());
            StoreError::new(StoreErrorKind::Invalid, name, None, detail)
        };
        let pem = file::read(path, CA_FILE_MAX).map_err(|e| bad(e.to_string()))?;
        // The client would panic on certificates that it cannot parse.
        check_certificates(&pem).map_err(bad)?;
        trust.add_pem_certificate(pem);
    }
    let proxies = proxies(settings.endpoint.as_deref());
    let https = |trust: TrustStore, proxies: ProxyConfig| -> Result<SharedHttpClient, StoreError> {
        let context = TlsContext::builder().with_trust_store(trust).build();
        let context =
            context.map_err(|e| StoreError::new(StoreErrorKind::Invalid, name, None, format!("TLS settings: {e}")))?;
        // The SDK's simpler builders do not support proxies.
        Ok(aws_smithy_http_client::Builder::new().build_with_connector_fn(move |settings, components| {
            let mut builder = Connector::builder().proxy_config(proxies.clone());
            builder.set_connector_settings(settings.cloned());
            builder.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
            builder.tls_provider(Provider::Rustls(CryptoMode::AwsLc)).tls_context(context.clone()).build()
        }))
    };
    let for_credentials = https(trust.clone(), ProxyConfig::from_env())?;
    // Without TLS the system's certificates are not needed, and need not exist.
    let for_store = https(if plain { trust.with_native_roots(false) } else { trust }, proxies)?;
    Ok((BoundedHttpClient::over(for_store), BoundedHttpClient::over(for_credentials)))
}

/// The proxy from `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, with which operators set proxies. No proxy
/// is used for this host's own loopback.
fn proxies(endpoint: Option<&str>) -> ProxyConfig {
    if endpoint.is_some_and(is_on_loopback) { ProxyConfig::disabled() } else { ProxyConfig::from_env() }
}

/// Whether an endpoint is on this host, so that requests do not leave it.
pub(super) fn is_on_loopback(endpoint: &str) -> bool {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => authority.split(':').next().unwrap_or(authority),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn check_certificates(pem: &[u8]) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|e| format!("not PEM: {e}"))?;
        roots.add(certificate).map_err(|e| format!("not a certificate: {e}"))?;
    }
    if roots.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(()) }
}

async fn region(settings: &StoreSettings) -> Region {
    let mut profile = ProfileFileRegionProvider::builder();
    if let Some(name) = &settings.profile {
        profile = profile.profile_name(name);
    }
    let configured = settings.region.clone().map(Region::new);
    // The cloud's metadata service is not asked: outside of a cloud it costs seconds, and another provider's answer is
    // wrong.
    let chain = RegionProviderChain::first_try(configured)
        .or_else(EnvironmentVariableRegionProvider::new())
        .or_else(profile.build());
    chain.region().await.unwrap_or(Region::from_static(REGION_DEFAULT))
}

/// The server's clock minus the host's, as of the newest answer.
#[derive(Debug, Clone, Default)]
pub(super) struct ServerClock(Arc<Mutex<Option<SignedDuration>>>);

impl ServerClock {
    pub(super) fn offset(&self) -> Option<SignedDuration> {
        *self.0.lock()
    }
}

/// The failure of the last attempt, if no attempt since has had an answer.
#[derive(Debug, Clone, Default)]
pub(super) struct LastAttemptError(Arc<Mutex<Option<String>>>);

impl LastAttemptError {
    pub(super) fn last(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

/// Records each attempt of a request. The SDK reports only the last one.
#[derive(Debug)]
struct AttemptErrorInterceptor(LastAttemptError);

#[dyn_dispatch_hint]
impl Intercept for AttemptErrorInterceptor {
    fn name(&self) -> &'static str {
        "Troubles"
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let error = context.output_or_error().and_then(Result::err);
        let failed = error.and_then(|error| attempt_failure(error, context.response()));
        *self.0.0.lock() = failed;
        Ok(())
    }
}

/// A certificate that was refused once is refused again, so there is no retry: the error is reported at once.
#[derive(Debug)]
struct NoRetryOnBadCertificate;

impl ClassifyRetry for NoRetryOnBadCertificate {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let error = context.output_or_error().and_then(Result::err).and_then(OrchestratorError::as_connector_error);
        let refused = error.is_some_and(|e| is_bad_certificate(e));
        // An endless document would be endless again.
        let endless = context.output_or_error().and_then(Result::err).is_some_and(|e| is_too_long(e));
        if refused || endless { RetryAction::RetryForbidden } else { RetryAction::NoActionIndicated }
    }

    fn name(&self) -> &'static str {
        "NotBadCertificates"
    }
}

/// Reads `Date` from each answer of the store, refusals included, and rejects answers that are no store's although
/// their status says success.
#[derive(Debug)]
struct ClockInterceptor {
    clock: ServerClock,
    env: Env,
}

#[dyn_dispatch_hint]
impl Intercept for ClockInterceptor {
    fn name(&self) -> &'static str {
        "ServerClock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        // The SDK takes every 200 for a successful put, and a captive portal's page for an object's content.
        if response.status().is_success() && is_browser_page(response) {
            return Err("a page for browsers".into());
        }
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        // A proxy has its own clock.
        if !is_store_response(response, context.output_or_error().is_ok()) {
            return Ok(());
        }
        let date = response.headers().get("date");
        if let Some(date) = date.and_then(|text| jiff::fmt::rfc2822::parse(text).ok()) {
            let offset = date.timestamp().duration_since(self.env.clock.now());
            *self.clock.0.lock() = Some(offset);
        }
        Ok(())
    }
}

/// Whether the answer is a page for browsers. Objects of a repository are never stored with that type; a server that
/// sends it with empty answers also sends S3 headers.
fn is_browser_page(response: &HttpResponse) -> bool {
    let headers = response.headers();
    let kind = headers.get("content-type").unwrap_or_default().to_ascii_lowercase();
    let is_html = kind.starts_with("text/html") || kind.starts_with("application/xhtml");
    is_html && !headers.iter().any(|(name, _)| name.starts_with("x-amz"))
}

/// Whether the headers are a store's, as far as they show before the body is read.
fn has_store_headers(response: &HttpResponse) -> bool {
    let headers = response.headers();
    let is_xml = headers.get("content-type").is_some_and(|kind| kind.contains("xml"));
    !is_browser_page(response) && (is_xml || headers.get("etag").is_some() || headers.get("x-amz-request-id").is_some())
}

/// Whether a store gave this answer: a refusal with an S3 error document, or a success with a store's headers.
fn is_store_response(response: &HttpResponse, is_understood: bool) -> bool {
    let body = response.body().bytes().unwrap_or_default();
    if !response.status().is_success() {
        return is_error_document(body);
    }
    let headers = response.headers();
    // A body that could be parsed is one of the S3 documents.
    is_understood && (!body.is_empty() || headers.get("etag").is_some() || headers.get("x-amz-request-id").is_some())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::{KeySource, StoreUrl};
    use crate::store::s3::{S3Options, S3Store};
    use crate::store::{SizeLimit, Store as _};

    #[test]
    fn what_is_no_certificate_is_named() {
        assert_eq!(check_certificates(b"hello").unwrap_err(), "there is no certificate in it");
        let garbage = b"-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        assert!(check_certificates(garbage).unwrap_err().starts_with("not a certificate"));
        let torn = b"-----BEGIN CERTIFICATE-----\naGVsbG8=\n";
        assert!(check_certificates(torn).unwrap_err().starts_with("not PEM"));
    }

    #[test]
    fn an_endpoint_with_a_path_ends_in_a_slash() {
        for (written, used) in [
            ("https://s3.example.net", "https://s3.example.net"),
            ("https://s3.example.net/", "https://s3.example.net"),
            ("https://s3.example.net/storage/v1/s3", "https://s3.example.net/storage/v1/s3/"),
            ("http://[::1]:9000/storage/v1/s3//", "http://[::1]:9000/storage/v1/s3/"),
        ] {
            assert_eq!(with_final_slash(written), used);
        }
    }

    const SLOW_DOWN: &str = "HTTP/1.1 503 Slow Down\r\ncontent-type: application/xml\r\ncontent-length: 46\r\nconnection: close\r\n\r\n\
                             <Error><Code>SlowDown</Code><Message/></Error>";
    const NO_SUCH_KEY: &str = "HTTP/1.1 404 Not Found\r\ncontent-type: application/xml\r\ncontent-length: 47\r\nconnection: close\r\n\r\n\
                               <Error><Code>NoSuchKey</Code><Message/></Error>";

    /// A store behind a server that gives one of these answers to each request in turn, and then stops answering.
    async fn answering(answers: &[&'static str]) -> S3Store {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let answers = answers.to_vec();
        tokio::spawn(async move {
            let mut hung = Vec::new();
            for answer in answers.into_iter().map(Some).chain(std::iter::repeat(None)) {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 4096]).await.unwrap();
                match answer {
                    Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                    None => hung.push(stream),
                }
            }
        });
        at(endpoint).await
    }

    async fn at(endpoint: String) -> S3Store {
        let url = StoreUrl::S3 { bucket: "b".to_owned(), prefix: String::new() };
        let settings = StoreSettings { endpoint: Some(endpoint), ..StoreSettings::new(url, KeySource::None) };
        let credentials = Some(Credentials::new("key", "secret", None, None, "test"));
        let options = S3Options { credentials, ..S3Options::default() };
        S3Store::connect(&settings, "b", "", &Env::host(), options).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_waits_no_longer_for_tries_in_a_row_hears_how_the_last_one_failed() {
        let (store, silent) = (answering(&[SLOW_DOWN]).await, answering(&[]).await);
        for store in [&store, &silent] {
            assert_eq!(store.last_attempt_error(), None);
            let asked = tokio::time::timeout(Duration::from_secs(3), store.get("k", SizeLimit::LIVE)).await;
            assert!(asked.is_err(), "{asked:?}");
        }
        assert_eq!(store.last_attempt_error().as_deref(), Some("SlowDown, status 503"));
        assert_eq!(silent.last_attempt_error(), None, "there was no end of any");
        let store = answering(&[SLOW_DOWN, NO_SUCH_KEY]).await;
        assert!(store.get("k", SizeLimit::LIVE).await.unwrap_err().is_not_found());
        assert_eq!(store.last_attempt_error(), None, "it has answered since");
        // No server listens on this port.
        let store = at("http://127.0.0.1:1".to_owned()).await;
        let asked = tokio::time::timeout(Duration::from_millis(300), store.get("k", SizeLimit::LIVE)).await;
        assert!(asked.is_err(), "{asked:?}");
        assert!(store.last_attempt_error().unwrap().contains("onnection refused"), "{:?}", store.last_attempt_error());
    }

    #[test]
    fn timeouts_grow_with_the_body() {
        assert_eq!(attempt_timeout(0), ATTEMPT_TIMEOUT);
        assert_eq!(attempt_timeout(64 << 20), ATTEMPT_TIMEOUT + Duration::from_secs(1024));
    }
}
