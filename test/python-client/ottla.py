"""A client of ottla in Python, written from docs/protocol.md and the two schema files alone.

It is a test of the document: whatever a reader has to know stands there. It promises no speed, and retries nothing.
"""

import socket
import struct
import time
import zlib

import messages_pb2 as pb
import record_batch_pb2 as records_pb

DEADLINE_S = 20


class Refused(Exception):
    """The answer names an error, for the request as a whole or for one thing it asked for."""

    def __init__(self, detail, hint=None):
        super().__init__("%d: %s" % (detail.code, detail.message))
        self.code = detail.code
        self.message = detail.message
        self.hint = hint


class Connection:
    """One connection: `ask` sends a request and waits for its answer; other answers are kept for who asked for them."""

    def __init__(self, address, handshake=True, **fields):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), DEADLINE_S)
        self.next_id = 1
        self.answers = {}
        self.about = self.ask("handshake", pb.HandshakeRequest(client_id="python", **fields)) if handshake else None

    def close(self):
        self.socket.close()

    def send_frame(self, message):
        self.socket.sendall(struct.pack(">I", len(message)) + message)

    def send(self, kind, body, records=()):
        request = pb.Request(correlation_id=self.next_id, records=records)
        getattr(request, kind).CopyFrom(body)
        self.next_id += 1
        self.send_frame(request.SerializeToString())
        return request.correlation_id

    def receive(self):
        (length,) = struct.unpack(">I", self._bytes(4))
        return pb.Response.FromString(self._bytes(length))

    def answer(self, correlation_id):
        while correlation_id not in self.answers:
            response = self.receive()
            self.answers[response.correlation_id] = response
        response = self.answers.pop(correlation_id)
        if response.HasField("error"):
            raise Refused(response.error)
        return response

    def ask(self, kind, body, records=()):
        return getattr(self.answer(self.send(kind, body, records)), kind)

    def has_ended(self):
        """Whether the broker has closed the connection, or does so before the deadline."""
        try:
            return self.socket.recv(1) == b""
        except (ConnectionError, socket.timeout) as error:
            return isinstance(error, ConnectionError)

    def _bytes(self, count):
        read = b""
        while len(read) < count:
            more = self.socket.recv(count - len(read))
            if more == b"":
                raise ConnectionError("the broker has ended the connection")
            read += more
        return read


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def records_of(values):
    """A Records message. A value may be bytes, None for a tombstone, or (key, value)."""
    message = records_pb.Records()
    for delta, one in enumerate(values):
        key, value = one if isinstance(one, tuple) else (None, one)
        record = message.record.add(offset_delta=delta)
        if key is not None:
            record.key = key
        if value is not None:
            record.value = value
    return message.SerializeToString()


def batch_of(values, attributes=0, producer=(-1, -1, -1), timestamp=None, count=None, last_delta=None, records=None):
    """One batch, as the drawing of its bytes has it."""
    now = int(time.time() * 1000) if timestamp is None else timestamp
    count = len(values) if count is None else count
    producer_id, producer_epoch, base_sequence = producer
    records = records_of(values) if records is None else records
    checked = b"".join(
        [
            struct.pack("<BI", 0x2D, attributes),
            struct.pack("<BI", 0x35, count - 1 if last_delta is None else last_delta),
            struct.pack("<BQ", 0x39, now),
            struct.pack("<BQ", 0x41, now),
            struct.pack("<Bq", 0x49, producer_id),
            struct.pack("<Bi", 0x55, producer_epoch),
            struct.pack("<Bi", 0x5D, base_sequence),
            struct.pack("<BI", 0x65, count),
            b"\x6a" + varint(len(records)) + records,
        ]
    )
    stamped_by_leader = struct.pack("<BQBIBI", 0x09, 0, 0x15, 0, 0x1D, 0)
    body = stamped_by_leader + struct.pack("<BI", 0x25, zlib.crc32(checked)) + checked
    return b"\x0a" + varint(len(body)) + body


def records_in(batches):
    """(offset, key, value) of all records; both checksums are checked, by the places that the drawing gives."""
    found = []
    for batch in records_pb.RecordBatches.FromString(batches).batch:
        body = batch.SerializeToString()
        if zlib.crc32(body[24:]) != batch.crc or zlib.crc32(body[:14] + body[19:24]) != batch.stamp_crc:
            raise ValueError("the batch at offset %d is damaged" % batch.base_offset)
        for record in records_pb.Records.FromString(batch.records).record:
            key = record.key if record.HasField("key") else None
            value = record.value if record.HasField("value") else None
            found.append((batch.base_offset + record.offset_delta, key, value))
    return found


def partition_of(key, partitions):
    """Java's murmur2 of the key, the sign bit cleared, modulo the number of partitions."""
    mask = 0xFFFFFFFF
    h = 0x9747B28C ^ len(key)
    whole = len(key) - len(key) % 4
    for at in range(0, whole, 4):
        k = int.from_bytes(key[at : at + 4], "little") * 0x5BD1E995 & mask
        k = (k ^ k >> 24) * 0x5BD1E995 & mask
        h = h * 0x5BD1E995 & mask ^ k
    if whole < len(key):
        h = (h ^ int.from_bytes(key[whole:], "little")) * 0x5BD1E995 & mask
    h = (h ^ h >> 13) * 0x5BD1E995 & mask
    return ((h ^ h >> 15) & 0x7FFFFFFF) % partitions


class Client:
    """Knows brokers, topics and leaders, and asks the one that it should."""

    def __init__(self, bootstrap):
        self.connections = {}
        self.bootstrap = Connection(bootstrap)
        self.refresh()

    def refresh(self, *topics):
        self.metadata = self.bootstrap.ask("metadata", pb.MetadataRequest(topics=topics, no_topics=not topics))
        return self.metadata

    def topic(self, name):
        (topic,) = self.refresh(name).topics
        if topic.HasField("error"):
            raise Refused(topic.error)
        return topic

    def to(self, broker_id):
        if broker_id not in self.connections:
            (broker,) = [one for one in self.metadata.brokers if one.id == broker_id]
            address = "%s:%d" % (broker.host, broker.port)
            self.connections[broker_id] = Connection(address, cluster_id=self.metadata.cluster_id)
        return self.connections[broker_id]

    def controller(self):
        return self.to(self.refresh().controller_id)

    def create(self, name, **fields):
        request = pb.CreateTopicsRequest(topics=[pb.NewTopic(name=name, **fields)], timeout_ms=10_000)
        (result,) = self.controller().ask("create_topics", request).topics
        if result.HasField("error"):
            raise Refused(result.error)
        return self.topic_with_leaders(name)

    def topic_with_leaders(self, name):
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            topic = self.topic(name)
            if topic.partitions and all(one.leader_id >= 0 for one in topic.partitions):
                return topic
            time.sleep(0.05)
        raise TimeoutError("%s has no leaders" % name)

    def leader(self, topic, partition=0):
        (found,) = [one for one in topic.partitions if one.partition == partition]
        return self.to(found.leader_id)

    def produce(self, topic, batch, partition=0, acks=-1, connection=None, **fields):
        target = pb.ProducePartition(topic_id=topic.topic_id, partition=partition, **fields)
        request = pb.ProduceRequest(acks=acks, timeout_ms=5000, partitions=[target])
        connection = connection or self.leader(topic, partition)
        (result,) = connection.ask("produce", request, [batch]).partitions
        if result.HasField("error"):
            raise Refused(result.error, result.leader if result.HasField("leader") else None)
        return result.base_offset

    def fetch_request(self, topic, offset, partition=0, max_wait_ms=0, session=(0, 0), **fields):
        asked = pb.FetchPartition(
            topic_id=topic.topic_id, partition=partition, fetch_offset=offset, max_bytes=1 << 20, **fields
        )
        return pb.FetchRequest(
            max_wait_ms=max_wait_ms,
            min_bytes=1,
            max_bytes=1 << 22,
            session_id=session[0],
            session_epoch=session[1],
            partitions=[asked],
        )

    def fetch(self, topic, offset, partition=0, **fields):
        """The records from `offset` on; the first batch may begin before it."""
        connection = self.leader(topic, partition)
        sent = connection.send("fetch", self.fetch_request(topic, offset, partition, **fields))
        response = connection.answer(sent)
        found = []
        at = 0
        for one in response.fetch.partitions:
            if one.HasField("error"):
                raise Refused(one.error)
            if one.record_bytes > 0:
                found += records_in(response.records[at])
                at += 1
        return [record for record in found if record[0] >= offset]

    def offset(self, topic, spec, partition=0, **fields):
        asked = pb.ListOffsetsPartition(topic_id=topic.topic_id, partition=partition, spec=spec, **fields)
        request = pb.ListOffsetsRequest(partitions=[asked])
        (result,) = self.leader(topic, partition).ask("list_offsets", request).partitions
        if result.HasField("error"):
            raise Refused(result.error)
        return result.offset
