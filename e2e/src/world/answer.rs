//! One DNS message in, one out.

use std::sync::RwLock;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record};

use super::Zone;

/// How a message came, which limits the size of its answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram: longer answers are truncated to what the client says it takes.
    Udp,
    /// A stream: anything fits.
    Tcp,
}

/// The answer to `bytes`, or none if they are not a DNS message that has one.
pub fn answer(zone: &RwLock<Zone>, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let request = Message::from_vec(bytes)
        .ok()
        .filter(|message| message.metadata.message_type == MessageType::Query)?;
    let response = match request.metadata.op_code {
        OpCode::Update => {
            zone.write().ok()?.update(&request);
            Message::response(request.metadata.id, OpCode::Update)
        }
        OpCode::Query => query(&*zone.read().ok()?, &request),
        other => Message::error_msg(request.metadata.id, other, ResponseCode::NotImp),
    };
    let bytes = response.to_vec().ok()?;
    if transport == Transport::Udp && bytes.len() > usize::from(request.max_payload()) {
        return response.truncate().to_vec().ok();
    }
    Some(bytes)
}

fn query(zone: &Zone, request: &Message) -> Message {
    let Some(question) = request.queries.first() else {
        return Message::error_msg(request.metadata.id, OpCode::Query, ResponseCode::FormErr);
    };
    let (code, answers) = zone.lookup(question.name(), question.query_type());
    let mut response = Message::response(request.metadata.id, OpCode::Query);
    response.metadata.authoritative = true;
    response.metadata.recursion_desired = request.metadata.recursion_desired;
    // It follows chains itself, so it is as good as a recursive resolver; some stub resolvers insist on the flag.
    response.metadata.recursion_available = true;
    response.metadata.response_code = code;
    response.add_query(question.clone());
    if answers.is_empty() {
        response.add_authority(start_of_authority());
    }
    response.add_answers(answers);
    if let Some(edns) = &request.edns {
        let mut reply = edns.clone();
        reply.set_max_payload(4096);
        response.edns = Some(reply);
    }
    response
}

/// Tells caches how long to remember that a name does not exist: one second (RFC 2308).
fn start_of_authority() -> Record {
    let name = |text: &str| Name::from_ascii(text).unwrap_or_else(|_| Name::root());
    let soa = SOA::new(name("world.test."), name("nobody.test."), 1, 60, 60, 60, 1);
    Record::from_rdata(Name::root(), 1, RData::SOA(soa))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::op::{Edns, Query};
    use hickory_proto::rr::RecordType;

    use super::*;

    fn ask(name: &str, edns: Option<u16>, transport: Transport) -> Message {
        let mut zone = Zone::default();
        let many: Vec<String> = (0..100).map(|n| Ipv4Addr::new(198, 18, 1, n).to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        zone.update(&super::super::rrset_message("many.test", RecordType::A, 9, &many).unwrap());
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        if let Some(size) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            message.edns = Some(edns);
        }
        let bytes = answer(&RwLock::new(zone), &message.to_vec().unwrap(), transport).unwrap();
        Message::from_vec(&bytes).unwrap()
    }

    #[test]
    fn long_answers_are_truncated_for_datagrams_only() {
        assert!(ask("many.test.", None, Transport::Udp).metadata.truncation);
        assert_eq!(ask("many.test.", None, Transport::Tcp).answers.len(), 100);
        assert_eq!(ask("many.test.", Some(4096), Transport::Udp).answers.len(), 100);
    }

    #[test]
    fn missing_names_come_with_a_short_negative_ttl() {
        let message = ask("missing.test.", None, Transport::Udp);
        assert_eq!(message.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(message.authorities[0].ttl, 1);
    }

    #[test]
    fn rubbish_has_no_answer() {
        let zone = RwLock::new(Zone::default());
        assert_eq!(answer(&zone, b"rubbish", Transport::Udp), None);
        assert_eq!(answer(&zone, &[], Transport::Tcp), None);
    }
}
