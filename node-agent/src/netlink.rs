//! netlink(7): a request and its answers, whatever they are about.

use std::io;

use netlink_packet_core::{
    NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

/// A socket in the network namespace of the thread that made it.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// A socket in the present namespace, for one of `netlink_sys::protocols`.
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends a request, with these flags beside REQUEST, and reads up to its acknowledgement, or to the end of the dump.
    pub fn request<M>(&mut self, message: M, flags: u16) -> io::Result<Vec<M>>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        let mut answers = Vec::new();
        self.each_answer(message, flags, |answer| answers.push(answer))?;
        Ok(answers)
    }

    /// The same where there may be very many answers: each is shown as it comes, and the kernel waits meanwhile.
    pub fn each_answer<M>(&mut self, message: M, flags: u16, mut see: impl FnMut(M)) -> io::Result<()>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            if self.read(&datagram, &mut see)? {
                return Ok(());
            }
        }
    }

    /// Takes the messages of a datagram; whether the last one was among them.
    fn read<M>(&self, mut datagram: &[u8], see: &mut impl FnMut(M)) -> io::Result<bool>
    where
        M: NetlinkDeserializable,
    {
        while !datagram.is_empty() {
            let message = NetlinkMessage::<M>::deserialize(datagram)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            // Each begins at a multiple of four bytes.
            let length = (message.header.length as usize).next_multiple_of(4).max(4);
            datagram = datagram.get(length..).unwrap_or_default();
            if message.header.sequence_number != self.sequence {
                continue;
            }
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Error(_) => return Ok(true),
                NetlinkPayload::InnerMessage(answer) => see(answer),
                _ => {}
            }
        }
        Ok(false)
    }
}
