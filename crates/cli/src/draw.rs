//! `draw verify`: recomputes a draw from its published data, from a running server or from a file.
//!
//! Only the list itself is taken on trust: the seed must match the commitment, the list must match the published hash, and
//! the order follows from both.

use crate::input;
use crate::output::print;
use anyhow::{Context as _, bail, ensure};
use boxoffice_app::json;
use boxoffice_domain::draw::{self, Hash32};
use boxoffice_domain::{ConcertId, UserId};
use clap::{Args, Subcommand};
use reqwest::Client;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use uuid::Uuid;

/// The longest list that is fetched.
const ENTRIES_MAX: usize = 5_000_000;
/// How long the server may take for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Subcommand)]
pub(super) enum Task {
    /// Recomputes every place from the published data; exits with 1, and the reason, if something does not match
    Verify(Verify),
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The server's address, such as http://127.0.0.1:8080
    #[arg(required_unless_present = "file", requires = "concert")]
    url: Option<String>,
    /// The concert's id
    concert: Option<Uuid>,
    /// A file instead of a server: {"concert_id": "…", "draw": …, "entries": […]} with the answer of GET
    /// /api/v1/concerts/{id}/draw, and the items of all pages of GET /api/v1/concerts/{id}/draw/entries
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    file: Option<PathBuf>,
    /// Writes the server's published data to such a file
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    save: Option<PathBuf>,
    /// Prints the place of a user; may be repeated
    #[arg(long, value_name = "UUID")]
    user: Vec<Uuid>,
    /// Prints the place of a draw key, in hex; may be repeated
    #[arg(long, value_name = "DRAW_KEY")]
    key: Vec<String>,
}

/// The published data of a draw.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Published {
    #[serde(default)]
    concert_id: Option<Uuid>,
    draw: Draw,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Draw {
    commitment: String,
    algorithm: String,
    entries: Option<usize>,
    entries_hash: Option<String>,
    #[serde(default)]
    base: Option<u64>,
    beacon: Option<String>,
    seed: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Entry {
    draw_key: String,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Entry>,
    next_cursor: Option<String>,
}

pub(super) async fn run(task: &Task, json: bool) -> anyhow::Result<ExitCode> {
    let Task::Verify(options) = task;
    let published = match (&options.file, &options.url, options.concert) {
        (Some(file), ..) => json::read_file(&input::read(file)?).map_err(|fault| anyhow::anyhow!("{}: {fault}", file.display()))?,
        (None, Some(url), Some(concert)) => fetch(url.trim_end_matches('/'), concert).await?,
        _ => bail!("give a server and a concert, or a file"),
    };
    if let Some(file) = &options.save {
        std::fs::write(file, serde_json::to_vec(&published)?).with_context(|| file.display().to_string())?;
    }
    let verified = match verify(&published) {
        Ok(verified) => verified,
        Err(reason) => {
            eprintln!("boxoffice: the draw does not match its published data: {reason}");
            return Ok(ExitCode::FAILURE);
        }
    };
    let mut places = Vec::new();
    for user in &options.user {
        let concert = published.concert_id.or(options.concert).context("the file has no concert_id: give draw keys instead of users")?;
        let key = draw::draw_key(UserId(*user), ConcertId(concert));
        places.push((user.to_string(), verified.place(&key)));
    }
    for text in &options.key {
        let key = bytes_of(text).with_context(|| format!("{text} is no draw key"))?;
        places.push((text.clone(), verified.place(&key)));
    }
    print(&report(&verified, &places, json))?;
    let all_found = places.iter().all(|(_, place)| place.is_some());
    Ok(if all_found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(verified: &Verified, places: &[(String, Option<u64>)], json: bool) -> String {
    if json {
        let places: Vec<_> = places.iter().map(|(of, place)| json!({ "of": of, "place": place })).collect();
        return json!({ "verified": true, "entries": verified.order.len(), "places": places }).to_string();
    }
    let verdict = format!("the draw is verified: seed, list and order of {} buyers match the published data", verified.order.len());
    let place = |(of, place): &(String, Option<u64>)| match place {
        Some(place) => format!("place {place}: {of}"),
        None => format!("not on the list: {of}"),
    };
    std::iter::once(verdict).chain(places.iter().map(place)).collect::<Vec<_>>().join("\n")
}

async fn fetch(url: &str, concert: Uuid) -> anyhow::Result<Published> {
    let client = Client::builder().timeout(ANSWER_MAX).build()?;
    let base = format!("{url}/api/v1/concerts/{concert}/draw");
    let draw: Draw = get(&client, &base).await?;
    let (mut entries, mut cursor) = (Vec::new(), String::new());
    loop {
        let page: Page = get(&client, &format!("{base}/entries?limit=200{cursor}")).await?;
        entries.extend(page.items);
        ensure!(entries.len() <= ENTRIES_MAX, "the list is longer than {ENTRIES_MAX}");
        match page.next_cursor {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(Published { concert_id: Some(concert), draw, entries }),
        }
    }
}

async fn get<T: DeserializeOwned>(client: &Client, url: &str) -> anyhow::Result<T> {
    let answer = client.get(url).send().await?;
    let status = answer.status();
    ensure!(status.is_success(), "{url} answers {status}");
    answer.json().await.with_context(|| url.to_owned())
}

/// A draw that matches its published data.
struct Verified {
    base: u64,
    /// Rank and draw key, in the order of places.
    order: Vec<(Hash32, Hash32)>,
    salt: Hash32,
}

impl Verified {
    fn place(&self, key: &Hash32) -> Option<u64> {
        let at = self.order.binary_search(&(draw::rank(&self.salt, key), *key)).ok()?;
        Some(self.base + at as u64 + 1)
    }
}

fn verify(published: &Published) -> Result<Verified, String> {
    let Published { draw, entries, .. } = published;
    if draw.algorithm != draw::ALGORITHM {
        return Err(format!("algorithm: {} is unknown to this program", draw.algorithm));
    }
    let Some(seed) = &draw.seed else { return Err("seed: the draw has not been made yet".to_owned()) };
    let hash = |name: &str, text: &str| bytes_of(text).ok_or_else(|| format!("{name}: {text:?} is no hash in lower-case hex"));
    let seed = hash("seed", seed)?;
    if draw::commitment(&seed) != hash("commitment", &draw.commitment)? {
        return Err("commitment: it is not the SHA-256 of the seed".to_owned());
    }
    let keys: Vec<Hash32> = entries.iter().map(|entry| hash("entries", &entry.draw_key)).collect::<Result<_, _>>()?;
    if let Some(at) = keys.windows(2).position(|pair| pair[0] >= pair[1]) {
        return Err(format!("entries: not in ascending order after {}", entries[at].draw_key));
    }
    if draw.entries != Some(keys.len()) {
        return Err(format!("entries: {} are listed, but {} were announced", keys.len(), draw.entries.unwrap_or_default()));
    }
    let announced = draw.entries_hash.as_deref().ok_or("entries_hash: it is missing")?;
    if draw::entries_hash(&keys) != hash("entries_hash", announced)? {
        return Err("entries_hash: it is not the hash of the list".to_owned());
    }
    let salt = draw::salt(&seed, draw.beacon.as_deref());
    let mut order: Vec<_> = keys.iter().map(|key| (draw::rank(&salt, key), *key)).collect();
    order.sort_unstable();
    Ok(Verified { base: draw.base.unwrap_or(0), order, salt })
}

fn bytes_of(hex: &str) -> Option<Hash32> {
    let is_hex = hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut hash = [0; 32];
    for (at, byte) in hash.iter_mut().enumerate().take_while(|_| is_hex) {
        *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    is_hex.then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxoffice_app::http::hex;

    fn published(people: u128, beacon: Option<&str>) -> Published {
        let (seed, concert) = ([7; 32], Uuid::from_u128(9));
        let mut keys: Vec<_> = (1..=people).map(|at| draw::draw_key(UserId(Uuid::from_u128(at)), ConcertId(concert))).collect();
        keys.sort_unstable();
        Published {
            concert_id: Some(concert),
            draw: Draw {
                commitment: hex(&draw::commitment(&seed)),
                algorithm: draw::ALGORITHM.to_owned(),
                entries: Some(keys.len()),
                entries_hash: Some(hex(&draw::entries_hash(&keys))),
                base: Some(2),
                beacon: beacon.map(str::to_owned),
                seed: Some(hex(&seed)),
            },
            entries: keys.iter().map(|key| Entry { draw_key: hex(key) }).collect(),
        }
    }

    #[test]
    fn places_follow_from_seed_beacon_and_list() {
        let places = |beacon| {
            let published = published(20, beacon);
            let verified = verify(&published).unwrap_or_else(|reason| panic!("{reason}"));
            let place = |entry: &Entry| verified.place(&bytes_of(&entry.draw_key).unwrap()).unwrap();
            published.entries.iter().map(place).collect::<Vec<_>>()
        };
        let (plain, mixed) = (places(None), places(Some("a pulse")));
        for places in [&plain, &mixed] {
            let mut sorted = places.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (3..=22).collect::<Vec<_>>(), "after the two places that were given out before");
        }
        assert_ne!(plain, mixed);
    }

    #[test]
    fn tampered_data_is_named() {
        type Tamper = fn(&mut Published);
        let tampered: [(&str, Tamper); 9] = [
            ("algorithm", |draw| draw.draw.algorithm = "md5".to_owned()),
            ("seed", |draw| draw.draw.seed = None),
            ("seed", |draw| draw.draw.seed = Some("77".to_owned())),
            ("commitment", |draw| draw.draw.seed = Some("77".repeat(32))),
            ("entries", |draw| draw.entries.swap(3, 4)),
            ("entries", |draw| drop(draw.entries.pop())),
            ("entries", |draw| draw.entries[0].draw_key = "x".to_owned()),
            ("entries_hash", |draw| draw.entries[0].draw_key = "0".repeat(64)),
            ("entries_hash", |draw| draw.draw.entries_hash = None),
        ];
        for (named, tamper) in tampered {
            let mut published = published(10, None);
            assert!(verify(&published).is_ok());
            tamper(&mut published);
            let reason = verify(&published).err().unwrap_or_default();
            assert!(reason.starts_with(&format!("{named}:")), "{reason}");
        }
    }

    #[test]
    fn text_that_is_not_hex_is_no_hash() {
        for wrong in ["", "00", &"g".repeat(64), &"A".repeat(64), &"é".repeat(32)] {
            assert_eq!(bytes_of(wrong), None, "{wrong}");
        }
        assert_eq!(bytes_of(&"0f".repeat(32)), Some([15; 32]));
    }
}
