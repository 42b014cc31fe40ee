//! Bearer tokens of an identity provider: each algorithm with its key, and everything that must be refused.

use std::path::Path;

use boxoffice_tests::{Answer, Server, Setup};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

const SECRET: &str = "an HS256 secret of the tests, long enough";
const USER: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

const RS256: &[u8] = include_bytes!("../keys/rs256.der");
const ES256: &[u8] = include_bytes!("../keys/es256.der");
const EDDSA: &[u8] = include_bytes!("../keys/eddsa.der");
const JWKS: &[u8] = include_bytes!("../keys/jwks.json");

fn key(algorithm: Algorithm) -> EncodingKey {
    boxoffice_app::crypto::install();
    match algorithm {
        Algorithm::RS256 => EncodingKey::from_rsa_der(RS256),
        Algorithm::ES256 => EncodingKey::from_ec_der(ES256),
        Algorithm::EdDSA => EncodingKey::from_ed_der(EDDSA),
        _ => EncodingKey::from_secret(SECRET.as_bytes()),
    }
}

/// Signs `claims` with the key of `algorithm`.
fn signed(algorithm: Algorithm, kid: Option<&str>, claims: &Value) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, claims, &key(algorithm)).unwrap()
}

fn jwt(algorithm: &str) -> Setup {
    let jwks = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/keys/jwks.json");
    let setup = Setup::default().with("auth.mode=jwt").with(&format!("auth.algorithm={algorithm}"));
    match algorithm {
        "HS256" => setup.with(&format!("auth.hs256_secret={SECRET}")),
        _ => setup.with(&format!("auth.jwks_file={}", jwks.display())),
    }
}

/// Unix seconds at the server.
fn now(server: &Server) -> i64 {
    use boxoffice_ports::Clock as _;
    server.clock.now().timestamp()
}

/// Claims of [`USER`] for an hour.
fn claims(server: &Server, more: Value) -> Value {
    let mut claims = json!({ "sub": USER, "exp": now(server) + 3_600 });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claims
}

async fn wallet(server: &Server, token: &str) -> Answer {
    Answer::to(server.http().get(format!("{}/api/v1/wallet", server.base)).bearer_auth(token)).await
}

async fn is_refused(server: &Server, what: &str, token: &str) {
    let refused = wallet(server, token).await;
    assert_eq!((refused.status, refused.code(), refused.header("www-authenticate")), (401, "unauthenticated", Some("Bearer")), "{what}");
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_algorithm_opens_with_its_own_key_alone() {
    let all = [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
    for (algorithm, name, kid) in
        [(all[0], "HS256", "any"), (all[1], "RS256", "rs256"), (all[2], "ES256", "es256"), (all[3], "EdDSA", "eddsa")]
    {
        let server = jwt(name).start().await;
        let claims = claims(&server, json!({}));
        for kid in [Some(kid), None] {
            wallet(&server, &signed(algorithm, kid, &claims)).await.expect(200);
        }
        for other in all.into_iter().filter(|other| *other != algorithm) {
            for kid in [Some(kid), None] {
                is_refused(&server, &format!("{other:?} at {name}"), &signed(other, kid, &claims)).await;
            }
        }
        if name != "HS256" {
            is_refused(&server, "an unknown kid", &signed(algorithm, Some("unknown"), &claims)).await;
            is_refused(&server, "another key's kid", &signed(algorithm, Some(if kid == "rs256" { "es256" } else { "rs256" }), &claims))
                .await;
        }
        // No public value is accepted as a secret.
        let public: Value = serde_json::from_slice(JWKS).unwrap();
        let modulus = public["keys"][0]["n"].as_str().unwrap().as_bytes();
        for secret in [JWKS, modulus, RS256, b""] {
            let forged = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret)).unwrap();
            is_refused(&server, &format!("HS256 with what is public at {name}"), &forged).await;
        }
        let genuine = signed(algorithm, None, &claims);
        let mut parts = genuine.split('.');
        let (head, payload, signature) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        for alg in ["none", "None", "NONE", "HS256", "HS512", "RS512", "PS256", ""] {
            let header = base64(json!({ "alg": alg, "typ": "JWT" }).to_string().as_bytes());
            is_refused(&server, &format!("{alg} without a signature at {name}"), &format!("{header}.{payload}.")).await;
            is_refused(&server, &format!("{alg} with another signature at {name}"), &format!("{header}.{payload}.{signature}")).await;
        }
        let mut other = claims.clone();
        other["role"] = json!("operator");
        is_refused(&server, "another payload", &format!("{head}.{}.{signature}", base64(other.to_string().as_bytes()))).await;
        // A key in the header is ignored, and a critical extension that is not known is refused.
        let embedded = json!({ "alg": name, "jwk": public["keys"][1], "jku": "http://127.0.0.1:1/" });
        is_refused(&server, "a key of its own", &format!("{}.{payload}.{signature}", base64(embedded.to_string().as_bytes()))).await;
        let critical = Header { crit: Some(vec!["b64".to_owned()]), ..Header::new(algorithm) };
        is_refused(&server, "crit", &jsonwebtoken::encode(&critical, &claims, &key(algorithm)).unwrap()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_are_checked_and_times_have_their_leeway() {
    let server = jwt("HS256").with("auth.issuer=https://id.example").with("auth.audience=boxoffice").start().await;
    let sign = |more: Value| {
        let mut all = claims(&server, json!({ "iss": "https://id.example", "aud": "boxoffice" }));
        for (name, value) in more.as_object().unwrap() {
            if value.is_null() {
                all.as_object_mut().unwrap().remove(name);
            } else {
                all[name] = value.clone();
            }
        }
        signed(Algorithm::HS256, None, &all)
    };
    let at = now(&server);
    for good in [
        json!({}),
        json!({ "aud": ["other", "boxoffice"] }),
        json!({ "exp": at - 10 }),
        json!({ "nbf": at + 20 }),
        json!({ "exp": at as f64 + 60.5 }),
        json!({ "anything": { "else": [1] } }),
    ] {
        let answer = wallet(&server, &sign(good.clone())).await;
        assert_eq!(answer.status, 200, "{good}: {answer:?}");
    }
    for bad in [
        json!({ "exp": null }),
        json!({ "exp": "never" }),
        json!({ "exp": at - 31 }),
        json!({ "exp": -1 }),
        json!({ "nbf": at + 600 }),
        json!({ "iss": null }),
        json!({ "iss": "https://id.example.evil" }),
        json!({ "aud": null }),
        json!({ "aud": "other" }),
        json!({ "aud": [] }),
        json!({ "sub": null }),
        json!({ "sub": "a buyer" }),
        json!({ "sub": 7 }),
    ] {
        is_refused(&server, &bad.to_string(), &sign(bad.clone())).await;
    }
    // A token that was verified before ends at its time, too.
    let short = sign(json!({ "exp": at + 60 }));
    wallet(&server, &short).await.expect(200);
    server.advance(91);
    is_refused(&server, "a remembered token", &short).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_jwt_users_are_not_made_and_charge_no_wallet() {
    let server = jwt("HS256").start().await;
    let user = signed(Algorithm::HS256, None, &claims(&server, json!({})));
    let operator = signed(Algorithm::HS256, None, &claims(&server, json!({ "sub": super::UNKNOWN, "role": "operator" })));
    let url = |path: &str| format!("{}/api/v1{path}", server.base);
    let keyed = |request: RequestBuilder, token: &str| {
        Answer::to(request.bearer_auth(token).header("Idempotency-Key", "k").json(&json!({ "amount": 500 })))
    };

    let new_user = server.http().post(url("/dev/users")).json(&json!({ "name": "a buyer", "operator": true }));
    Answer::to(new_user).await.expect_problem(403, "dev_mode_off");
    keyed(server.http().post(url("/wallet/charges")), &user).await.expect_problem(403, "self_charge_off");
    keyed(server.http().post(url("/wallet/charges")), &operator).await.expect_problem(403, "self_charge_off");
    let admin = url(&format!("/admin/users/{USER}/wallet/charges"));
    keyed(server.http().post(&admin), &user).await.expect_problem(403, "forbidden");
    for role in [json!("Operator"), json!(["operator"]), json!(true), json!("admin")] {
        let token = signed(Algorithm::HS256, None, &claims(&server, json!({ "role": role })));
        keyed(server.http().post(&admin), &token).await.expect_problem(403, "forbidden");
    }
    keyed(server.http().post(&admin), &operator).await.expect(201);
    assert_eq!(wallet(&server, &user).await.expect(200).number("balance"), 500, "the user is the token's `sub`");
    assert_eq!(wallet(&server, &operator).await.expect(200).number("balance"), 0);

    let server = jwt("HS256").with("wallet.self_charge=true").start().await;
    keyed(server.http().post(format!("{}/api/v1/wallet/charges", server.base)), &user).await.expect(201);
}
