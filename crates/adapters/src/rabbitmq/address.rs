//! Which broker the settings name.

use std::str::FromStr;

use lapin::uri::{AMQPScheme, AMQPUri};

use super::failure::Failure;

/// A connection on which nothing was heard for so long has ended, unless the address says otherwise (`?heartbeat=`).
const HEARTBEAT_S: u16 = 10;

/// Where the broker is and who asks. It holds a password and is not to be printed.
pub(super) struct Address(AMQPUri);

impl Address {
    /// An error never repeats the address.
    pub(super) fn parse(url: &str) -> Result<Self, Failure> {
        let refused = |why: &str| Err(Failure::Settings(format!("the address of RabbitMQ {why}")));
        let Ok(mut uri) = AMQPUri::from_str(url) else {
            return refused("is not of the form amqp://user:password@host:5672/%2f");
        };
        if uri.scheme == AMQPScheme::AMQPS {
            return refused("asks for TLS, which is not built in");
        }
        // The library would go to localhost instead.
        if url.contains('[') {
            return refused("must name a host or hold an IPv4 address");
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
        Ok(Self(uri))
    }

    pub(super) fn uri(&self) -> AMQPUri {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_never_repeated() {
        let uri = Address::parse("amqp://ann:s3cret@broker:5673/shop").map(|address| address.uri()).unwrap();
        assert_eq!((uri.authority.host.as_str(), uri.authority.port, uri.vhost.as_str()), ("broker", 5_673, "shop"));
        assert_eq!(uri.query.heartbeat, Some(HEARTBEAT_S));
        assert_eq!(Address::parse("amqp://broker/%2f?heartbeat=3").map(|address| address.uri().query.heartbeat).unwrap(), Some(3));
        for url in [
            "",
            "s3cret",
            "amqp:s3cret",
            "http://a:s3cret@b",
            "amqps://a:s3cret@b",
            "amqp://a:s3cret@[::1]:5672/%2f",
            "amqp://a:s3cret@b:x",
        ] {
            let Err(error) = Address::parse(url) else { panic!("{url}") };
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
    }
}
