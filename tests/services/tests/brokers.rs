//! Kafka and RabbitMQ can be killed, paused and started again, and keep their data.

use boxoffice_services::{Kafka, RabbitMq};
use std::io::{ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a cluster may take to notice a change.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one answer is waited for. A broker that takes longer counts as hanging; where it is only slow, the test asks
/// again.
const ANSWER_MAX: Duration = Duration::from_millis(500);

const CREATE_TOPICS: [u8; 4] = [0, 19, 0, 2];
const METADATA: [u8; 4] = [0, 3, 0, 0];

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn kafka_keeps_its_topics_over_a_kill_and_hangs_while_paused() {
    let mut kafka = Kafka::start().expect("it starts");
    let broker = kafka.brokers();
    assert_eq!(kafka.pids().len(), 1);
    assert!(!has_topic(&broker, "sales").expect("answered"));
    create_topic(&broker, "sales", 1).expect("answered");
    wait_until("the topic", || has_topic(&broker, "sales").is_ok_and(|has| has));
    kafka.pause(0).expect("hung");
    let error = has_topic(&broker, "sales").expect_err("no answer");
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    kafka.resume(0).expect("it goes on");
    wait_until("an answer", || has_topic(&broker, "sales").is_ok_and(|has| has));
    kafka.kill(0).expect("killed");
    assert_eq!(kafka.pids().len(), 0);
    assert_eq!(has_topic(&broker, "sales").expect_err("refused").kind(), ErrorKind::ConnectionRefused);
    kafka.restart(0).expect("it starts again");
    assert_eq!(kafka.brokers(), broker);
    wait_until("the topic again", || has_topic(&broker, "sales").is_ok_and(|has| has));
}

#[test]
fn kafka_of_three_goes_on_without_one_and_comes_back_from_none() {
    let mut kafka = Kafka::start_many(3).expect("it starts");
    let all = kafka.brokers();
    let brokers: Vec<_> = all.split(',').collect();
    // Once started, each lists all.
    assert_eq!(brokers.iter().map(|broker| listed(broker).expect("answered")).collect::<Vec<_>>(), [3, 3, 3]);
    create_topic(brokers[0], "sales", 3).expect("answered");
    kafka.kill(1).expect("killed");
    assert_eq!(kafka.pids().len(), 2);
    wait_until("two are left", || [0, 2].iter().all(|&node| listed(brokers[node]).is_ok_and(|count| count == 2)));
    create_topic(brokers[2], "refunds", 2).expect("answered");
    kafka.restart(1).expect("it starts again");
    assert_eq!(listed(brokers[1]).expect("answered"), 3);
    kafka.kill_all().expect("killed");
    assert!(kafka.pids().is_empty());
    // One of three is no majority: it cannot become ready, so its start is not waited for.
    kafka.restart(2).expect("it is started");
    kafka.restart_all().expect("they start again");
    assert_eq!(brokers.iter().map(|broker| listed(broker).expect("answered")).collect::<Vec<_>>(), [3, 3, 3]);
    for topic in ["sales", "refunds"] {
        wait_until(topic, || brokers.iter().all(|broker| has_topic(broker, topic).is_ok_and(|has| has)));
    }
}

#[test]
fn rabbitmq_keeps_its_queues_over_a_kill_and_hangs_while_paused() {
    let mut node = RabbitMq::start().expect("it starts");
    for kind in ["classic", "quorum", "stream"] {
        let arguments = format!("[{{<<\"x-queue-type\">>, longstr, <<\"{kind}\">>}}]");
        let name = format!("{{resource, <<\"/\">>, queue, <<\"{kind}\">>}}");
        let declared = node.eval(&format!("element(1, rabbit_amqqueue:declare({name}, true, false, {arguments}, none, <<\"guest\">>))"));
        assert_eq!(declared.expect("declared"), "new");
    }
    let queues = |node: &RabbitMq| {
        let text = node.command(&["list_queues", "--no-table-headers", "name", "type", "state"]).expect("listed");
        let mut lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        lines.sort();
        lines
    };
    let three = ["classic classic running", "quorum quorum running", "stream stream running"];
    assert_eq!(queues(&node), three);
    let (port, pid) = (node.port(), node.pid().expect("it runs"));
    node.pause().expect("hung");
    let error = Client::connect(port).err().expect("no answer");
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    node.resume().expect("it goes on");
    wait_until("an answer", || Client::connect(port).is_ok());
    node.write_down().expect("written down");
    node.kill().expect("killed");
    assert_eq!(Client::connect(port).err().expect("refused").kind(), ErrorKind::ConnectionRefused);
    assert!(node.pid().is_err() && node.eval("ok").is_err());
    node.restart().expect("it starts again");
    assert_ne!(node.pid().expect("it runs"), pid);
    assert_eq!(node.url(), format!("amqp://guest:guest@127.0.0.1:{port}/%2f"));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = queues(&node);
        if found == three {
            break;
        }
        assert!(Instant::now() < deadline, "{found:?}");
    }
}

#[test]
fn rabbitmq_closes_connections_and_raises_alarms() {
    let node = RabbitMq::start().expect("it starts");
    let mut client = Client::connect(node.port()).expect("connected");
    node.close_all_connections().expect("closed");
    assert_eq!(client.method().expect("a method"), [10, 50], "connection.close");
    let alarms = || node.eval("length(rabbit_alarm:get_alarms())").expect("counted");
    for _ in 0..2 {
        node.set_memory_alarm(true).expect("raised");
        assert_eq!(alarms(), "1");
        node.set_memory_alarm(false).expect("cleared");
        assert_eq!(alarms(), "0");
    }
    assert!(node.eval("no:such()").is_err() && node.command(&["no_such_command"]).is_err());
}

/// Sends a request to a Kafka broker, `kind` being its key and version; the answer without its correlation.
fn ask(broker: &str, kind: [u8; 4], body: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(broker)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    let request = [&kind[..], &[0, 0, 0, 9, 0, 0], body].concat();
    stream.write_all(&(request.len() as u32).to_be_bytes())?;
    stream.write_all(&request)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer)?;
    Ok(answer.split_off(4))
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

/// A topic of one partition.
fn create_topic(broker: &str, name: &str, copies: u8) -> Result<()> {
    // One topic: one partition, its copies, nothing assigned, nothing configured; then the time allowed.
    let body = [&[0, 0, 0, 1][..], &text(name), &[0, 0, 0, 1, 0, copies, 0, 0, 0, 0, 0, 0, 0, 0], &10_000_u32.to_be_bytes(), &[0]].concat();
    // The controller may take longer than `ANSWER_MAX`: the caller waits for the topic.
    let answered = ask(broker, CREATE_TOPICS, &body);
    match answered {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(()),
        other => other.map(drop),
    }
}

/// How many brokers a broker lists.
fn listed(broker: &str) -> Result<u32> {
    let answer = ask(broker, METADATA, &[&[0, 0, 0, 1][..], &text("-")].concat())?;
    Ok(u32::from_be_bytes([answer[0], answer[1], answer[2], answer[3]]))
}

/// Whether a broker has a topic with a leader.
fn has_topic(broker: &str, name: &str) -> Result<bool> {
    let answer = ask(broker, METADATA, &[&[0, 0, 0, 1][..], &text(name)].concat())?;
    // Topics are last: an error, a name, and the partitions, each with an error of its own.
    let name = text(name);
    let at = answer.windows(name.len()).rposition(|window| window == name).expect("the topic");
    Ok(answer[at - 2..at] == [0, 0] && answer[at + name.len()..].starts_with(&[0, 0, 0, 1, 0, 0]))
}

/// As much of AMQP as opens a connection.
struct Client(TcpStream);

impl Client {
    fn connect(port: u16) -> Result<Self> {
        let mut client = Self(TcpStream::connect(("127.0.0.1", port))?);
        client.0.set_read_timeout(Some(ANSWER_MAX))?;
        client.0.write_all(b"AMQP\x00\x00\x09\x01")?;
        assert_eq!(client.method()?, [10, 10], "start");
        client.send(&[&[0, 10, 0, 11, 0, 0, 0, 0, 5][..], b"PLAIN\x00\x00\x00\x0c\x00guest\x00guest\x05en_US"].concat())?;
        // Checking a password takes long.
        client.0.set_read_timeout(Some(PATIENCE))?;
        assert_eq!(client.method()?, [10, 30], "tune");
        client.send(&[0, 10, 0, 31, 0x07, 0xff, 0, 1, 0, 0, 0, 0])?;
        client.send(&[0, 10, 0, 40, 1, b'/', 0, 0])?;
        assert_eq!(client.method()?, [10, 41], "open-ok");
        Ok(client)
    }

    fn send(&mut self, method: &[u8]) -> Result<()> {
        let head = [&[1, 0, 0][..], &(method.len() as u32).to_be_bytes()].concat();
        self.0.write_all(&[&head, method, &[0xCE]].concat())
    }

    /// Class and method of the next frame.
    fn method(&mut self) -> Result<[u16; 2]> {
        let mut head = [0; 7];
        self.0.read_exact(&mut head)?;
        let mut payload = vec![0; u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize + 1];
        self.0.read_exact(&mut payload)?;
        Ok([u16::from_be_bytes([payload[0], payload[1]]), u16::from_be_bytes([payload[2], payload[3]])])
    }
}
