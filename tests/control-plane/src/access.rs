//! Who may talk to the API server: keys, tokens and kubeconfig files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use k8s_openapi::{
    ByteString,
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::ServiceAccount,
    },
};
use kube::{Api, Client, api::PostParams};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};

use crate::{
    Program,
    error::{Doing, Error},
    options::{Options, User, files},
};

/// What tokens of service accounts say of who issued them, and whom they are for.
pub(crate) const SERVICE_ACCOUNT_ISSUER: &str = "https://kubernetes.default.svc";
/// How long a token of a service account holds, in seconds: longer than any test or demonstration.
const TOKEN_SECONDS: i64 = 24 * 3600;
/// The group that may do everything, and whose requests no limit holds up.
const MASTERS: &str = "system:masters";
/// The user of [`crate::ControlPlane::client`].
const ADMIN: &str = "admin";

/// Tokens of users, made before the start.
#[derive(Debug)]
pub(crate) struct Access {
    /// User and token.
    tokens: Vec<(String, String)>,
}

impl Access {
    /// Makes tokens for us, for the programs and for `options.users`, and writes into `folder` what the API server reads.
    pub(crate) fn create(options: &Options, folder: &Path) -> Result<Self, Error> {
        let ours = [(ADMIN, vec![MASTERS]), (user(Program::ControllerManager), vec![]), (user(Program::Scheduler), vec![])];
        let ours = ours.into_iter().chain([(user(Program::Kwok), vec![MASTERS])]);
        let ours = ours.map(|(name, groups)| User { name: name.to_owned(), groups: groups.into_iter().map(str::to_owned).collect() });
        let mut tokens = Vec::new();
        let mut lines = Vec::new();
        for (number, User { name, groups }) in ours.chain(options.users.iter().cloned()).enumerate() {
            let token = random_token()?;
            let quoted = |text: &str| text.replace('"', "\"\"");
            lines.push(format!("{token},\"{}\",{number},\"{}\"\n", quoted(&name), quoted(&groups.join(","))));
            tokens.push((name, token));
        }
        write(&folder.join(files::TOKENS), &lines.concat())?;
        let (private, public) = service_account_keys()?;
        write(&folder.join(files::SERVICE_ACCOUNT_KEY), &private)?;
        write(&folder.join(files::SERVICE_ACCOUNT_PUBLIC_KEY), &public)?;
        Ok(Self { tokens })
    }

    fn token(&self, name: &str) -> Option<&str> {
        self.tokens.iter().find(|(user, _)| user == name).map(|(_, token)| token.as_str())
    }

    /// Writes the kubeconfig of one of ours: of `program`, or of the administrator.
    pub(crate) fn kubeconfig(&self, program: Option<Program>, server: &Server, folder: &Path) -> Result<PathBuf, Error> {
        let name = program.map_or(ADMIN, user);
        let token = self.token(name).ok_or_else(|| Error::NoUser(name.to_owned()))?;
        server.kubeconfig(name, token, folder)
    }

    /// Writes the kubeconfig of `name`: a user of the options, or a service account, which is given a token for a day.
    pub(crate) async fn kubeconfig_for(&self, name: &str, client: Client, server: &Server, folder: &Path) -> Result<PathBuf, Error> {
        if let Some(token) = self.token(name) {
            return server.kubeconfig(name, token, folder);
        }
        let account = name.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
        let (namespace, account) = account.ok_or_else(|| Error::NoUser(name.to_owned()))?;
        let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
        let answer = answer.doing(|| format!("no token for the service account {account} in namespace {namespace}"))?;
        let token = answer.status.and_then(|status| status.token).ok_or_else(|| Error::NoUser(name.to_owned()))?;
        server.kubeconfig(name, &token, folder)
    }
}

/// What a kubeconfig says of the API server.
#[derive(Debug)]
pub(crate) struct Server {
    /// `https://127.0.0.1:PORT`
    pub(crate) url: String,
    /// Its certificate and who signed it, as PEM.
    pub(crate) certificates: Vec<u8>,
}

impl Server {
    fn kubeconfig(&self, user: &str, token: &str, folder: &Path) -> Result<PathBuf, Error> {
        // JSON strings are YAML strings too.
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let certificates = serde_json::to_string(&ByteString(self.certificates.clone())).unwrap_or_default();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: partita\n\
             clusters:\n- name: partita\n  cluster:\n    server: {}\n    certificate-authority-data: {certificates}\n\
             users:\n- name: {user}\n  user:\n    token: {}\n\
             contexts:\n- name: partita\n  context:\n    cluster: partita\n    user: {user}\n",
            quoted(&self.url),
            quoted(token),
            user = quoted(user),
        );
        let path = folder.join(format!("{}.kubeconfig", user.replace([':', '/'], "-")));
        write(&path, &text)?;
        Ok(path)
    }
}

/// The name by which roles of Kubernetes know a program.
const fn user(program: Program) -> &'static str {
    match program {
        Program::ControllerManager => "system:kube-controller-manager",
        Program::Scheduler => "system:kube-scheduler",
        other => other.name(),
    }
}

fn random_token() -> Result<String, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other).doing(|| "no random bytes for a token".to_owned())?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}

/// What stands before the point in the DER of a public key on the curve P-256 (RFC 5480): the algorithm, the curve, the length.
const P256_PUBLIC_KEY_HEADER: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01,
    0x07, 0x03, 0x42, 0x00,
];

/// The key that signs tokens of service accounts and the one that checks them, as PEM. The API server reads a private key in PKCS #8, but
/// no public key out of it.
fn service_account_keys() -> Result<(String, String), Error> {
    let random = SystemRandom::new();
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).and_then(|document| {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random);
        Ok((document, pair.map_err(|_| ring::error::Unspecified)?))
    });
    let made = made.map_err(|_| std::io::Error::other("the system gave no random numbers"));
    let (document, pair) = made.doing(|| "could not make a key for service accounts".to_owned())?;
    let public = [&P256_PUBLIC_KEY_HEADER, pair.public_key().as_ref()].concat();
    Ok((pem::encode(&pem::Pem::new("PRIVATE KEY", document.as_ref())), pem::encode(&pem::Pem::new("PUBLIC KEY", public))))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    // The folder is ours alone, so the files need no further protection.
    fs::write(path, text).doing(|| format!("could not write {}", path.display()))
}
