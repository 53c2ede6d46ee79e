//! How a test changes the world's names: by DNS UPDATE (RFC 2136), which the world takes from anybody.

use std::net::{SocketAddr, UdpSocket};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode, UpdateMessage};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::txt::Parser;

use super::RESOLVER4;

/// The update that gives `name` these records of one type and no others of it. `data` is in the form of a zone
/// file; without any the records of that type go, and with the type `ANY` all of them.
///
/// # Errors
/// When the name or the data are not well-formed.
pub fn rrset_message(name: &str, type_: RecordType, ttl: u32, data: &[&str]) -> anyhow::Result<Message> {
    let name = Name::from_str(&absolute(name)).with_context(|| format!("{name} is not a DNS name"))?;
    let mut message = empty_update();
    message.add_update(removal(&name, type_));
    for data in data {
        let rdata =
            RData::try_from_str(type_, data).with_context(|| format!("{data} is no data of type {type_}"))?;
        message.add_update(Record::from_rdata(name.clone(), ttl, rdata));
    }
    Ok(message)
}

/// The update that sets every record set in a zone file's text, such as `api.shop.test. 30 IN A 198.18.0.80`.
///
/// # Errors
/// When the text is not a zone file.
pub fn load_message(zone_file: &str) -> anyhow::Result<Message> {
    let (_, sets) = Parser::new(zone_file, None, Some(Name::root())).parse().context("not a zone file")?;
    let mut message = empty_update();
    for set in sets.values() {
        message.add_update(removal(set.name(), set.record_type()));
        message.add_updates(set.records_without_rrsigs().cloned());
    }
    Ok(message)
}

/// Sends an update to the world on this host and waits until it is done.
///
/// # Errors
/// When no world answers, or it refuses.
pub fn send(update: &Message) -> anyhow::Result<()> {
    let server = SocketAddr::from((RESOLVER4, 53));
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    socket.send_to(&update.to_vec()?, server).with_context(|| format!("cannot send to {server}"))?;
    let mut buffer = [0; 4096];
    let (length, _) = socket
        .recv_from(&mut buffer)
        .with_context(|| format!("no world answers at {server}: is `world serve` running on this host?"))?;
    let answer = Message::from_vec(&buffer[..length])?;
    if answer.metadata.response_code != ResponseCode::NoError {
        bail!("the world refused the update: {}", answer.metadata.response_code);
    }
    Ok(())
}

fn empty_update() -> Message {
    let mut message = Message::new(1, MessageType::Query, OpCode::Update);
    message.add_zone(Query::query(Name::root(), RecordType::SOA));
    message
}

fn removal(name: &Name, type_: RecordType) -> Record {
    let mut record = Record::update0(name.clone(), 0, type_);
    record.dns_class = DNSClass::ANY;
    record
}

fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}
