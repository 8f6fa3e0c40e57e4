//! Who we are at AWS: the credentials of the platform, and the clients that use them.
//!
//! Without `credentials_file` the SDK's own chain looks in the environment, the shared files, a web
//! identity, the container and the instance, in this order. The sealed store is no part of it.

use std::time::Duration;

use aws_config::{
    BehaviorVersion, Region, SdkConfig, profile::ProfileFileCredentialsProvider,
    provider_config::ProviderConfig, retry::RetryConfig, sts::AssumeRoleProvider,
    timeout::TimeoutConfig,
};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_iam as iam;
use aws_sdk_sts as sts;
use aws_smithy_http_client::tls;
use tokio::sync::OnceCell;

use super::call::Call;
use crate::{config, connector::Failure};

/// What a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// The longest that one try of a call that only looks may take.
const TRY: Duration = Duration::from_secs(10);
/// How often a call that only looks is tried.
const TRIES: u32 = 3;
/// The name of our sessions, for CloudTrail.
const SESSION: &str = "keyturnd";

/// AWS, as this host may use it.
pub(super) struct Platform {
    host: config::AwsHost,
    clients: OnceCell<Clients>,
}

/// The clients, over one pool of connections.
pub(super) struct Clients {
    base: SdkConfig,
    /// IAM, for looking: the SDK tries again.
    pub(super) look: iam::Client,
    /// IAM, for changing: sent once.
    pub(super) change: iam::Client,
    /// STS.
    pub(super) sts: sts::Client,
}

/// Who AWS says that we are.
pub(super) struct Caller {
    /// The account, of 12 digits.
    pub(super) account: String,
    /// The user or the session.
    pub(super) arn: String,
}

impl Platform {
    /// AWS by a configuration; nothing is asked of the outside here.
    pub(super) fn new(host: config::AwsHost) -> Self {
        Self {
            host,
            clients: OnceCell::new(),
        }
    }

    /// How long a call takes at most.
    pub(super) fn deadline(&self) -> Duration {
        self.host.deadline
    }

    /// A call that only looks.
    pub(super) fn looks(&self, what: &'static str) -> Call {
        Call::look(what, self.deadline())
    }

    /// The clients.
    pub(super) async fn clients(&self) -> &Clients {
        self.clients
            .get_or_init(async || Clients::load(&self.host).await)
            .await
    }

    /// Who we are.
    pub(super) async fn caller(&self) -> Result<Caller, Failure> {
        let call = self.looks("GetCallerIdentity");
        let operation = self.clients().await.sts.get_caller_identity();
        let answer = call.send(operation.customize().interceptor(call.clone()).send());
        let answer = answer.await?;
        match (answer.account, answer.arn) {
            (Some(account), Some(arn)) => Ok(Caller { account, arn }),
            _ => Err(Failure::Unknown(
                "GetCallerIdentity: AWS does not say who we are".to_owned(),
            )),
        }
    }

    /// The clients, when they are those of this account. Nothing was begun where they are not.
    pub(super) async fn of_account(&self, account: &str) -> Result<&Clients, Failure> {
        let caller = self.caller().await?;
        if caller.account == account {
            Ok(self.clients().await)
        } else {
            Err(Failure::Refused(format!(
                "the definition names account {account}, but this connector works in {}; give the connector a \
                 `role_arn` of that account",
                caller.account
            )))
        }
    }
}

impl Clients {
    async fn load(host: &config::AwsHost) -> Self {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(
                tls::rustls_provider::CryptoMode::AwsLc,
            ))
            .build_https();
        let region = Region::new(host.region.as_ref().to_owned());
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .region(region.clone())
            .http_client(http.clone())
            .retry_config(RetryConfig::standard().with_max_attempts(TRIES))
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(CONNECT)
                    .operation_attempt_timeout(TRY)
                    .build(),
            );
        if let Some(endpoint) = &host.endpoint {
            loader = loader.endpoint_url(endpoint.as_ref());
        }
        if let Some(file) = &host.credentials_file {
            let files = EnvConfigFiles::builder()
                .with_file(EnvConfigFileKind::Credentials, file.as_ref())
                .build();
            // A profile may name a role or an identity, which are asked for over the same connections.
            let finding = ProviderConfig::default()
                .with_region(Some(region.clone()))
                .with_http_client(http);
            let of_file = ProfileFileCredentialsProvider::builder()
                .configure(&finding)
                .profile_files(files)
                .profile_name("default")
                .build();
            loader = loader.credentials_provider(of_file);
        }
        let base = loader.load().await;
        match &host.role_arn {
            None => Self::over(base),
            Some(role) => {
                let provider = AssumeRoleProvider::builder(role.as_ref())
                    .session_name(SESSION)
                    .region(region)
                    .configure(&base)
                    .build()
                    .await;
                let provider = iam::config::SharedCredentialsProvider::new(provider);
                Self::over(base.into_builder().credentials_provider(provider).build())
            }
        }
    }

    fn over(base: SdkConfig) -> Self {
        Self {
            look: iam::Client::new(&base),
            change: changing(&base, None),
            sts: sts::Client::new(&base),
            base,
        }
    }

    /// STS with an access key that was just made.
    pub(super) fn with_key(&self, id: &str, secret: &str) -> sts::Client {
        let key = sts::config::Credentials::new(id, secret, None, None, "new key");
        let config = sts::config::Builder::from(&self.base)
            .credentials_provider(key)
            .retry_config(RetryConfig::disabled());
        sts::Client::from_conf(config.build())
    }

    /// IAM in a session that was assumed.
    pub(super) fn in_session(&self, session: &sts::types::Credentials) -> iam::Client {
        let credentials = iam::config::Credentials::new(
            session.access_key_id(),
            session.secret_access_key(),
            Some(session.session_token().to_owned()),
            None,
            "session",
        );
        changing(&self.base, Some(credentials))
    }
}

/// IAM, every call of which is sent once.
fn changing(base: &SdkConfig, credentials: Option<iam::config::Credentials>) -> iam::Client {
    let mut config = iam::config::Builder::from(base).retry_config(RetryConfig::disabled());
    if let Some(credentials) = credentials {
        config = config.credentials_provider(credentials);
    }
    iam::Client::from_conf(config.build())
}
