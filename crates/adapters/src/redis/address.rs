//! The address of Redis: one node, Sentinel or Cluster, distinguished by `redis.urls` alone.
//!
//! | `redis.urls` | is |
//! | --- | --- |
//! | one `redis://[user:password@]host[:port][/db]` or `unix:///path[?db=n]` | one node |
//! | one `redis+sentinel://[user:password@]host[:port][,host[:port]…]/master[/db][?sentinel=user:password]` | the master of that name, looked up at the Sentinels for each connection |
//! | several `redis://…`, equal but for host and port | the seeds of a Cluster, which report the other nodes |
//!
//! Credentials in front of the host are for the data nodes; those for the Sentinels themselves stand in `sentinel=`.
//! Reserved characters in either are percent-encoded.
//!
//! *Failure.* An address that cannot be read is refused at start. The message names its place in the list and never
//! repeats it, because it may hold a password.

use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{Client, ConnectionInfo, IntoConnectionInfo};

use super::failure::{Failure, ROUND_TRIP_MAX};

/// The scheme that names Sentinels.
const SENTINEL: &str = "redis+sentinel://";
/// The port of a Sentinel whose address names none.
const SENTINEL_PORT: u16 = 26379;

/// How often a Cluster's client follows a redirection or tries another node, within one round trip, before it gives up.
const CLUSTER_RETRIES: u32 = 4;
/// Its pauses, in ms: several fit into [`ROUND_TRIP_MAX`], so that a slot that is moving is found.
const CLUSTER_PAUSE_MIN_MS: u64 = 5;
const CLUSTER_PAUSE_MAX_MS: u64 = 60;

/// What to connect to.
pub(super) enum Address {
    Node(Client),
    Sentinel(SentinelAddress),
    Cluster(ClusterAddress),
}

pub(super) struct SentinelAddress {
    sentinels: Vec<ConnectionInfo>,
    master: String,
    node: SentinelNodeConnectionInfo,
}

pub(super) struct ClusterAddress {
    pub(super) client: ClusterClient,
    /// For subscriptions: a message published on any node reaches every node.
    seeds: Vec<Client>,
}

impl Address {
    pub(super) fn parse(urls: &[String]) -> Result<Self, Failure> {
        match urls {
            [] => Err(Failure::Address("redis.urls is empty".to_owned())),
            [url] if url.starts_with(SENTINEL) => SentinelAddress::parse(&url[SENTINEL.len()..]).map(Self::Sentinel),
            [url] => Ok(Self::Node(client(url, 0)?)),
            seeds => ClusterAddress::parse(seeds).map(Self::Cluster),
        }
    }
}

impl SentinelAddress {
    fn parse(rest: &str) -> Result<Self, Failure> {
        let wrong = |what: &str| Failure::Address(format!("redis.urls[0]: {what}"));
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let sentinel_user = match query {
            None => None,
            Some(query) => Some(query.strip_prefix("sentinel=").ok_or_else(|| wrong("the only parameter is `sentinel=user:password`"))?),
        };
        let (node_user, rest) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
        let (hosts, path) = rest.split_once('/').ok_or_else(|| wrong("the master's name is missing"))?;
        let (master, db) = path.split_once('/').map_or((path, "0"), |(master, db)| (master, db));
        if master.is_empty() || hosts.split(',').any(str::is_empty) {
            return Err(wrong("expected redis+sentinel://host[:port][,host[:port]…]/master[/db]"));
        }
        let user = |user: Option<&str>| user.map(|user| format!("{user}@")).unwrap_or_default();
        let sentinels: Result<Vec<_>, _> = hosts
            .split(',')
            .map(|host| {
                let named = host.rsplit_once(']').map_or(host, |(_, after)| after).contains(':');
                let port = if named { String::new() } else { format!(":{SENTINEL_PORT}") };
                format!("redis://{}{host}{port}", user(sentinel_user)).into_connection_info()
            })
            .collect();
        let node = format!("redis://{}node/{db}", user(node_user)).into_connection_info();
        let node = node.map_err(|_| wrong("user, password or database cannot be read"))?;
        Ok(Self {
            sentinels: sentinels.map_err(|_| wrong("a Sentinel's address cannot be read"))?,
            master: master.to_owned(),
            node: SentinelNodeConnectionInfo::default().set_redis_connection_info(node.redis_settings().clone()),
        })
    }

    /// Asks the Sentinels, beginning with the `attempt`th, so that one that hangs does not always delay the others.
    pub(super) async fn master(&self, attempt: usize) -> redis::RedisResult<Client> {
        let mut sentinels = self.sentinels.clone();
        let first = attempt % sentinels.len();
        sentinels.rotate_left(first);
        SentinelClient::build(sentinels, self.master.clone(), Some(self.node.clone()), SentinelServerType::Master)?.async_get_client().await
    }
}

impl ClusterAddress {
    fn parse(urls: &[String]) -> Result<Self, Failure> {
        let seeds = urls.iter().enumerate().map(|(at, url)| client(url, at)).collect::<Result<Vec<_>, _>>()?;
        let client = ClusterClientBuilder::new(urls.iter().map(String::as_str))
            .retries(CLUSTER_RETRIES)
            .min_retry_wait(CLUSTER_PAUSE_MIN_MS)
            .max_retry_wait(CLUSTER_PAUSE_MAX_MS)
            .connection_timeout(ROUND_TRIP_MAX)
            .response_timeout(ROUND_TRIP_MAX)
            .build()
            .map_err(|_| Failure::Address("redis.urls: the seeds of a Cluster must be equal but for host and port".to_owned()))?;
        Ok(Self { client, seeds })
    }

    /// One of the seeds: another one at each attempt.
    pub(super) fn seed(&self, attempt: usize) -> &Client {
        &self.seeds[attempt % self.seeds.len()]
    }
}

fn client(url: &str, at: usize) -> Result<Client, Failure> {
    Client::open(url).map_err(|_| Failure::Address(format!("redis.urls[{at}] is not the address of a Redis node")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(urls: &[&str]) -> Result<Address, Failure> {
        Address::parse(&urls.iter().map(|url| (*url).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_urls_distinguish_node_sentinel_and_cluster() {
        assert!(matches!(parse(&["redis://u:p@h:7000/2"]), Ok(Address::Node(_))));
        assert!(matches!(parse(&["unix:///run/redis.sock?db=1"]), Ok(Address::Node(_))));
        assert!(matches!(parse(&["redis://a:7000", "redis://b:7000"]), Ok(Address::Cluster(_))));
        let Ok(Address::Sentinel(found)) = parse(&["redis+sentinel://u:p%40q@a:7000,b,[::1]:7001/shop/3?sentinel=s:t"]) else {
            panic!("not Sentinel")
        };
        assert_eq!(found.master, "shop");
        let at: Vec<_> = found.sentinels.iter().map(|sentinel| sentinel.addr().to_string()).collect();
        assert_eq!(at[..2], ["a:7000".to_owned(), format!("b:{SENTINEL_PORT}")]);
        assert!(at[2].ends_with(":7001"), "{at:?}");
        assert_eq!(found.sentinels[0].redis_settings().password(), Some("t"));
    }

    #[test]
    fn an_invalid_address_is_refused_without_repeating_it() {
        for urls in [
            &[][..],
            &["http://u:secret@h"],
            &["redis+sentinel://u:secret@h"],
            &["redis+sentinel://u:secret@h/"],
            &["redis+sentinel://u:secret@h,/shop"],
            &["redis+sentinel://u:secret@h/shop/secret"],
            &["redis+sentinel://h/shop?other=secret"],
            &["redis://h", "redis+sentinel://u:secret@h/shop"],
            &["redis://u:secret@h", "redis://v:secret@i"],
        ] {
            let Err(refused) = parse(urls) else { panic!("{urls:?} was accepted") };
            assert!(matches!(refused, Failure::Address(_)));
            assert!(!format!("{refused} {refused:?}").contains("secret"), "{refused}");
        }
    }
}
