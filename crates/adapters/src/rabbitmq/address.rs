//! The broker that the settings name: one address, or several nodes of a cluster in one, separated by commas.

use std::str::FromStr;

use lapin::uri::{AMQPScheme, AMQPUri};

use super::failure::Failure;

/// A connection that was silent for so long has ended, unless the address says otherwise (`?heartbeat=`).
const HEARTBEAT_S: u16 = 10;

/// The nodes of the broker, one at least, and the user. It holds a password and must not be printed.
pub(super) struct Address(Vec<AMQPUri>);

impl Address {
    /// An error never repeats the address.
    pub(super) fn parse(url: &str) -> Result<Self, Failure> {
        let refused = |why: &str| Err(Failure::Settings(format!("the address of RabbitMQ {why}")));
        // The library would connect to localhost instead.
        if url.contains('[') {
            return refused("must name a host or hold an IPv4 address");
        }
        let (before, nodes, after) = parts(url);
        let mut uris = Vec::new();
        for node in nodes.split(',') {
            let Ok(mut uri) = AMQPUri::from_str(&format!("{before}{node}{after}")) else {
                return refused("is not of the form amqp://user:password@host:5672/%2f");
            };
            if uri.scheme == AMQPScheme::AMQPS {
                return refused("asks for TLS, which is not built in");
            }
            if node.is_empty() && nodes.contains(',') {
                return refused("names no node beside a comma");
            }
            uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
            uris.push(uri);
        }
        Ok(Self(uris))
    }

    /// The address for the `attempt`th attempt: one node after the other.
    pub(super) fn uri(&self, attempt: u64) -> AMQPUri {
        // The remainder is below the number of nodes, of which there is one at least.
        self.0[(attempt % self.0.len() as u64) as usize].clone()
    }

    /// Whether several nodes are named.
    pub(super) fn is_cluster(&self) -> bool {
        self.0.len() > 1
    }
}

/// Scheme and user; the nodes; the virtual host and the parameters.
fn parts(url: &str) -> (&str, &str, &str) {
    let authority = url.find("://").map_or(0, |at| at + 3);
    let end = url[authority..].find(['/', '?']).map_or(url.len(), |at| authority + at);
    let nodes = url[..end].rfind('@').filter(|at| *at >= authority).map_or(authority, |at| at + 1);
    (&url[..nodes], &url[nodes..end], &url[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_parsed_and_never_repeated_in_an_error() {
        let uri = Address::parse("amqp://ann:s3cret@broker:5673/shop").map(|address| address.uri(7)).unwrap();
        assert_eq!((uri.authority.host.as_str(), uri.authority.port, uri.vhost.as_str()), ("broker", 5_673, "shop"));
        assert_eq!(uri.query.heartbeat, Some(HEARTBEAT_S));
        assert_eq!(Address::parse("amqp://broker/%2f?heartbeat=3").map(|address| address.uri(0).query.heartbeat).unwrap(), Some(3));
        for url in [
            "",
            "s3cret",
            "amqp:s3cret",
            "http://a:s3cret@b",
            "amqps://a:s3cret@b",
            "amqp://a:s3cret@[::1]:5672/%2f",
            "amqp://a:s3cret@b:x",
            "amqp://a:s3cret@b,",
            "amqp://a:s3cret@,b",
            "amqp://a:s3cret@b,c:x/%2f",
        ] {
            let Err(error) = Address::parse(url) else { panic!("{url}") };
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
    }

    #[test]
    fn each_attempt_goes_to_the_next_node_of_a_cluster() {
        let cluster = Address::parse("amqp://ann:s3cret@one:5673,two,three:5674/shop?heartbeat=3").unwrap();
        let places: Vec<_> = (0..4).map(|attempt| cluster.uri(attempt)).collect();
        let nodes: Vec<_> = places.iter().map(|uri| (uri.authority.host.as_str(), uri.authority.port)).collect();
        assert_eq!(nodes, [("one", 5_673), ("two", 5_672), ("three", 5_674), ("one", 5_673)]);
        let same = |uri: &AMQPUri| uri.vhost == "shop" && uri.query.heartbeat == Some(3) && uri.authority.userinfo.password == "s3cret";
        assert!(places.iter().all(same));
        let one = Address::parse("amqp://one").unwrap();
        assert_eq!((cluster.is_cluster(), one.is_cluster()), (true, false));
    }
}
