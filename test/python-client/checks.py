"""What docs/protocol.md promises, tried from outside: `python3 checks.py NAME` runs one check, `--list` names them all.

The address of a broker is in OTTLA_BOOTSTRAP, the document in OTTLA_PROTOCOL. Prints the errors that were met, a line each.
"""

import os
import re
import struct
import sys
import threading
import time

import messages_pb2 as pb
from ottla import Client, Connection, Refused, batch_of, partition_of, records_in, records_of

BOOTSTRAP = os.environ["OTTLA_BOOTSTRAP"]
with open(os.environ["OTTLA_PROTOCOL"], encoding="utf-8") as document:
    ROWS = re.findall(r"^\| (-?\d+) \| `([A-Z_]+)` \|", document.read(), re.M)
NAMES = {int(code): name for code, name in ROWS}
met = set()
checks = {}


def check(function):
    checks[function.__name__] = function
    return function


def same(actual, expected):
    if actual != expected:
        raise AssertionError("expected %r, got %r" % (expected, actual))


def refused(name, action, *args, **kwargs):
    """The action is refused with this error; returns what else the refusal says."""
    try:
        outcome = action(*args, **kwargs)
    except Refused as refusal:
        if NAMES[refusal.code] != name:
            raise AssertionError("expected %s, got %s (%s)" % (name, NAMES[refusal.code], refusal)) from refusal
        met.add(name)
        return refusal
    raise AssertionError("expected %s, got %r" % (name, outcome))


def timed(action, *args, **kwargs):
    began = time.monotonic()
    outcome = action(*args, **kwargs)
    return outcome, (time.monotonic() - began) * 1000


def new_topic(client, partitions=1, **fields):
    fields.setdefault("replication_factor", 3)
    return client.create("t-%d-%d" % (os.getpid(), time.time_ns()), partitions=partitions, **fields)


def setting(name, value):
    return pb.ConfigEntry(name=name, value=value)


@check
def handshake():
    first = Connection(BOOTSTRAP)
    assert first.about.cluster_id and first.about.broker_id > 0 and first.about.max_frame_bytes >= 1 << 20
    again = Connection(BOOTSTRAP, cluster_id=first.about.cluster_id)
    same(again.about.cluster_id, first.about.cluster_id)


@check
def refusals_of_connections():
    early = Connection(BOOTSTRAP, handshake=False)
    refused("HANDSHAKE_REQUIRED", early.ask, "metadata", pb.MetadataRequest())
    assert early.has_ended()
    stranger = Connection(BOOTSTRAP, handshake=False)
    refused("INCONSISTENT_CLUSTER_ID", stranger.ask, "handshake", pb.HandshakeRequest(cluster_id="another"))
    assert stranger.has_ended()
    overladen = Connection(BOOTSTRAP, handshake=False)
    message = refused("TOO_MANY_ELEMENTS", overladen.ask, "handshake", pb.HandshakeRequest(features=["f"] * 101)).message
    assert "several" not in message, message
    assert overladen.has_ended()
    early = Connection(BOOTSTRAP, handshake=False)
    early.send_frame(b"\x08\x63\xd2\x05\x00")
    refused("HANDSHAKE_REQUIRED", early.answer, 99)
    assert early.has_ended()
    # Also one that is no longer the first.
    again = Connection(BOOTSTRAP)
    again.ask("handshake", pb.HandshakeRequest())
    refused("INCONSISTENT_CLUSTER_ID", again.ask, "handshake", pb.HandshakeRequest(cluster_id="another"))
    assert again.has_ended()

    connection = Connection(BOOTSTRAP)
    # A body of field 90, which no broker knows; the connection goes on.
    connection.send_frame(b"\x08\x63\xd2\x05\x00")
    refused("UNSUPPORTED_VERSION", connection.answer, 99)
    # A field that a later version may add behind the body is skipped.
    connection.send_frame(pb.Request(correlation_id=98, metadata=pb.MetadataRequest()).SerializeToString() + b"\x98\x03\x01")
    assert connection.answer(98).metadata.cluster_id
    refused("CLUSTER_AUTHORIZATION_FAILED", connection.ask, "controlled_shutdown", pb.ControlledShutdownRequest())
    many = pb.MetadataRequest(topics=["t"] * 60_000)
    refused("TOO_MANY_ELEMENTS", connection.ask, "metadata", many)
    assert connection.ask("metadata", pb.MetadataRequest()).cluster_id
    # A frame that is no message ends it, and so does one that is too large for its kind. Without a body, with a number or
    # records in its place, with a body that is longer than the frame, twice the same.
    nothing = b"\xa2\x06" + bytes([100]) + bytes(100)
    for no_message in (b"", b"\x18\x01", nothing, b"\x98\x03\x01" + nothing, b"\x1a\x7f", b"\x08\x61\x1a\x00"):
        connection = Connection(BOOTSTRAP)
        connection.send_frame(b"\x08\x61" + no_message)
        refused("INVALID_REQUEST", connection.answer, 97)
        assert connection.has_ended()
    connection = Connection(BOOTSTRAP)
    connection.socket.sendall(struct.pack(">I", 2 << 20) + b"\x08\x60\x1a\xfb\xff\x7f" + bytes(64))
    refused("FRAME_TOO_LARGE", connection.answer, 96)
    assert connection.has_ended()


@check
def metadata():
    client = Client(BOOTSTRAP)
    topic = new_topic(client, partitions=2)
    same(len(client.metadata.brokers), 3)
    assert client.metadata.controller_id in [broker.id for broker in client.metadata.brokers]
    same(sorted(one.partition for one in topic.partitions), [0, 1])
    by_id = client.bootstrap.ask("metadata", pb.MetadataRequest(topic_ids=[topic.topic_id])).topics
    same([one.name for one in by_id], [topic.name])
    names = [one.name for one in client.bootstrap.ask("metadata", pb.MetadataRequest()).topics]
    assert topic.name in names
    refused("UNKNOWN_TOPIC_OR_PARTITION", client.topic, "nosuch")
    unknown = "00000000-0000-4000-8000-000000000000"
    (answer,) = client.bootstrap.ask("metadata", pb.MetadataRequest(topic_ids=[unknown])).topics
    same(NAMES[answer.error.code], "UNKNOWN_TOPIC_ID")
    for no_id in ("zz", topic.topic_id.upper(), ""):
        (answer,) = client.bootstrap.ask("metadata", pb.MetadataRequest(topic_ids=[no_id])).topics
        same(NAMES[answer.error.code], "INVALID_REQUEST")


@check
def create_topics():
    client = Client(BOOTSTRAP)
    topic = new_topic(client, partitions=3, config=[setting("max.message.bytes", "2000")])
    same((len(topic.partitions), topic.max_batch_bytes), (3, 2000))
    refused("TOPIC_ALREADY_EXISTS", client.create, topic.name)
    refused("INVALID_TOPIC", client.create, "no spaces")
    refused("INVALID_PARTITIONS", client.create, "a", partitions=1 << 30)
    refused("INVALID_REPLICATION_FACTOR", client.create, "a", replication_factor=9)
    refused("INVALID_REPLICA_ASSIGNMENT", client.create, "a", assignment=[pb.ReplicaList(broker_ids=[1, 1])])
    refused("INVALID_REPLICA_ASSIGNMENT", client.create, "a", partitions=5, assignment=[pb.ReplicaList(broker_ids=[1])])
    refused("INVALID_CONFIG", client.create, "a", config=[setting("nosuch", "1")])
    other = next(one.id for one in client.metadata.brokers if one.id != client.metadata.controller_id)
    refused("NOT_CONTROLLER", client.to(other).ask, "create_topics", pb.CreateTopicsRequest())
    leader = topic.partitions[0].leader_id
    elect = pb.ElectLeadersRequest(partitions=[pb.PartitionName(topic_id=topic.topic_id, partition=0)])
    (elected,) = client.controller().ask("elect_leaders", elect).partitions
    same((NAMES[elected.error.code], elected.leader_id), ("ELECTION_NOT_NEEDED", leader))
    met.add("ELECTION_NOT_NEEDED")
    no_id = topic.topic_id.upper()
    elect = pb.ElectLeadersRequest(partitions=[pb.PartitionName(topic_id=no_id, partition=0)])
    (elected,) = client.controller().ask("elect_leaders", elect).partitions
    same(NAMES[elected.error.code], "INVALID_REQUEST")
    (kept,) = client.controller().ask("delete_topics", pb.DeleteTopicsRequest(topic_ids=[no_id])).topics
    same(NAMES[kept.error.code], "INVALID_REQUEST")
    (gone,) = client.controller().ask("delete_topics", pb.DeleteTopicsRequest(names=[topic.name])).topics
    assert not gone.HasField("error")
    refused("UNKNOWN_TOPIC_OR_PARTITION", client.topic, topic.name)


@check
def produce():
    client = Client(BOOTSTRAP)
    topic = new_topic(client)
    same(client.produce(topic, batch_of([b"a", (b"k", b"b"), (b"", None)])), 0)
    same(client.produce(topic, batch_of([b"c"]), acks=1), 3)
    same(client.produce(topic, batch_of([b"d"]) + batch_of([b"e"])), 4)
    leader = client.leader(topic)
    target = pb.ProducePartition(topic_id=topic.topic_id)
    leader.send("produce", pb.ProduceRequest(acks=0, partitions=[target]), [batch_of([b"f"])])
    # It has no answer; what is asked after it is answered after it was appended.
    same(client.produce(topic, batch_of([b"g"])), 7)
    values = [(None, b"a"), (b"k", b"b"), (b"", None)] + [(None, one) for one in (b"c", b"d", b"e", b"f", b"g")]
    same(client.fetch(topic, 0), [(offset, *pair) for offset, pair in enumerate(values)])
    # Records are ordinary protobuf: a number that is 0 may be written, and a field that nobody knows is kept.
    odd = b"\x0a\x0b\x22\x01h\x10\x00\x08\x00\x4a\x02\xff\xff" + b"\x4a\x01x"
    same(client.produce(topic, batch_of([b"h"], records=odd)), 8)
    same(client.fetch(topic, 8), [(8, None, b"h")])


@check
def keys_go_where_those_of_others_go():
    # The hashes are those that the tests of Kafka's Java client hold.
    hashes = {b"21": -973932308, b"foobar": -790332482, b"abc": 479470107, b"a-little-bit-longer-string": -1486304829}
    for key, value in hashes.items():
        same(partition_of(key, 1000), (value & 0x7FFFFFFF) % 1000)


@check
def refusals_of_produce():
    client = Client(BOOTSTRAP)
    topic = new_topic(client, config=[setting("max.message.bytes", "2000")])
    broken = bytearray(batch_of([b"a"]))
    broken[-1] ^= 1
    refused("CORRUPT_MESSAGE", client.produce, topic, bytes(broken))
    refused("MESSAGE_TOO_LARGE", client.produce, topic, batch_of([bytes(3000)]))
    refused("INVALID_TIMESTAMP", client.produce, topic, batch_of([b"a"], timestamp=int(time.time() + 7200) * 1000))
    refused("INVALID_REQUIRED_ACKS", client.produce, topic, batch_of([b"a"]), acks=2)
    for invalid in [
        b"",
        b"GET / HTTP/1.1",
        batch_of([b"a"])[:-1],
        *[batch_of([b"a"], attributes=bits) for bits in (1, 7, 0x10, 0x20, 0x40, 1 << 31)],
        batch_of([], count=0, last_delta=0),
        batch_of([b"a"], last_delta=1),
        # Whole, with a right checksum, and nobody could read them.
        batch_of([b"a", b"b"], count=1),
        batch_of([b"a longer one"], count=2),
        batch_of([b"a", b"b"], records=records_of([b"a"]) + records_of([b"b"])),
        batch_of([b"a"], records=b"\x0a\x03\x22\x09a"),
        batch_of([b"a"], producer=(7, -1, 0)),
        batch_of([b"a"], producer=(1 << 53, 0, 0)),
        batch_of([b"a"], timestamp=1 << 53),
        # A header whose key is not UTF-8: generated code refuses to read it.
        batch_of([b"a"], records=b"\x0a\x06\x2a\x04\x0a\x02\xc3\x28"),
    ]:
        refused("INVALID_RECORD", client.produce, topic, invalid)
    # The bit of the timestamp type is taken.
    same(client.produce(topic, batch_of([b"a"], attributes=8)), 0)

    follower = next(one.id for one in client.metadata.brokers if one.id != topic.partitions[0].leader_id)
    hint = refused("NOT_LEADER_OR_FOLLOWER", client.produce, topic, batch_of([b"a"]), connection=client.to(follower)).hint
    same((hint.leader_id, hint.port > 0), (topic.partitions[0].leader_id, True))
    epoch = topic.partitions[0].leader_epoch
    refused("UNKNOWN_LEADER_EPOCH", client.produce, topic, batch_of([b"a"]), leader_epoch_plus_one=epoch + 9)
    leader = client.leader(topic)
    for topic_id, partition, name in [
        ("00000000-0000-4000-8000-000000000000", 0, "UNKNOWN_TOPIC_ID"),
        (topic.topic_id, 7, "UNKNOWN_TOPIC_OR_PARTITION"),
        ("orders", 0, "INVALID_REQUEST"),
    ]:
        target = pb.ProducePartition(topic_id=topic_id, partition=partition)
        request = pb.ProduceRequest(acks=1, partitions=[target])
        (result,) = leader.ask("produce", request, [batch_of([b"a"])]).partitions
        same(NAMES[result.error.code], name)
        met.add(name)
    refused("INVALID_REQUEST", leader.ask, "produce", pb.ProduceRequest(acks=1, partitions=[target]))


@check
def idempotence():
    client = Client(BOOTSTRAP)
    topic = new_topic(client)
    about = client.bootstrap.ask("init_producer_id", pb.InitProducerIdRequest())
    same(about.producer_epoch, 0)
    producer = about.producer_id

    def send(sequence, count=1, epoch=0, producer=producer, acks=-1):
        values = [b"%d" % (sequence + more) for more in range(count)]
        return client.produce(topic, batch_of(values, producer=(producer, epoch, sequence)), acks=acks)

    refused("UNKNOWN_PRODUCER_ID", send, 5)
    same([send(0, 2), *[send(sequence) for sequence in range(2, 8)]], [0, 2, 3, 4, 5, 6, 7])
    # The last five are known by their sequence, and acknowledged with the offset that they have.
    same([send(sequence) for sequence in range(3, 8)], [3, 4, 5, 6, 7])
    refused("DUPLICATE_SEQUENCE_NUMBER", send, 2)
    refused("DUPLICATE_SEQUENCE_NUMBER", send, 0, 2)
    refused("OUT_OF_ORDER_SEQUENCE_NUMBER", send, 9)
    refused("OUT_OF_ORDER_SEQUENCE_NUMBER", send, 1, epoch=1)
    same(send(0, epoch=1), 8)
    refused("INVALID_PRODUCER_EPOCH", send, 8)
    refused("INVALID_REQUIRED_ACKS", send, 1, epoch=1, acks=1)
    two = batch_of([b"a"], producer=(producer, 1, 1)) + batch_of([b"b"], producer=(producer, 1, 2))
    refused("INVALID_RECORD", client.produce, topic, two)


@check
def fetch_waits():
    client = Client(BOOTSTRAP)
    topic = new_topic(client)
    client.produce(topic, batch_of([b"a"]))
    found, took_ms = timed(client.fetch, topic, 0, max_wait_ms=15_000)
    same(found, [(0, None, b"a")])
    assert took_ms < 10_000, took_ms
    # Without a session, and as the first of one: nothing comes before the time is over.
    for session in [(0, 0), (0, 1)]:
        found, took_ms = timed(client.fetch, topic, 1, max_wait_ms=400, session=session)
        same(found, [])
        assert took_ms >= 400, took_ms
    # What comes meanwhile ends the wait.
    writer = Client(BOOTSTRAP)
    later = threading.Thread(target=lambda: writer.produce(topic, batch_of([b"b"])))
    sent = client.leader(topic).send("fetch", client.fetch_request(topic, 1, max_wait_ms=15_000))
    later.start()
    response, took_ms = timed(client.leader(topic).answer, sent)
    later.join()
    same(records_in(response.records[0]), [(1, None, b"b")])
    assert took_ms < 10_000, took_ms


@check
def fetch_sessions():
    client = Client(BOOTSTRAP)
    topic = new_topic(client, partitions=2)
    leader = client.leader(topic)
    first = leader.ask("fetch", client.fetch_request(topic, 0, session=(0, 1)))
    session = first.session_id
    assert session > 0
    client.produce(topic, batch_of([b"a"]))
    # What it has named is remembered.
    sent = leader.send("fetch", pb.FetchRequest(max_wait_ms=5000, max_bytes=1 << 20, session_id=session, session_epoch=2))
    response = leader.answer(sent)
    same([one.partition for one in response.fetch.partitions], [0])
    same(records_in(response.records[0]), [(0, None, b"a")])
    # A newer request completes one that waits.
    waiting = leader.send("fetch", client.fetch_request(topic, 1, max_wait_ms=15_000, session=(session, 3)))
    newer = leader.send("fetch", client.fetch_request(topic, 1, max_wait_ms=0, session=(session, 4)))
    _, took_ms = timed(lambda: (leader.answer(waiting), leader.answer(newer)))
    assert took_ms < 10_000, took_ms
    refused("INVALID_FETCH_SESSION_EPOCH", client.fetch, topic, 1, session=(session, 9))
    refused("FETCH_SESSION_ID_NOT_FOUND", client.fetch, topic, 1, session=(session + 1000, 2))


@check
def refusals_of_fetch():
    client = Client(BOOTSTRAP)
    topic = new_topic(client)
    client.produce(topic, batch_of([b"a"]))
    refused("OFFSET_OUT_OF_RANGE", client.fetch, topic, 9)
    epoch = topic.partitions[0].leader_epoch
    refused("UNKNOWN_LEADER_EPOCH", client.fetch, topic, 0, leader_epoch_plus_one=epoch + 9)
    refused("UNKNOWN_TOPIC_OR_PARTITION", unknown_partition, client, topic)
    leader = client.leader(topic)
    no_id = pb.FetchRequest(partitions=[pb.FetchPartition(topic_id="x" * 1000)])
    refused("INVALID_REQUEST", leader.ask, "fetch", no_id)
    # An offset that no record can have is refused for its partition alone.
    wide = new_topic(client, partitions=2, assignment=[pb.ReplicaList(broker_ids=[1])] * 2)
    client.produce(wide, batch_of([b"a"]))
    both = client.fetch_request(wide, 0)
    both.partitions.add(topic_id=wide.topic_id, partition=1, fetch_offset=1 << 53)
    answers = client.leader(wide).ask("fetch", both).partitions
    same([(one.partition, one.HasField("error") and NAMES[one.error.code]) for one in answers], [(0, False), (1, "OFFSET_OUT_OF_RANGE")])
    many = [pb.FetchPartition(topic_id=topic.topic_id, partition=one) for one in range(10_001)]
    refused("TOO_MANY_ELEMENTS", leader.ask, "fetch", pb.FetchRequest(partitions=many))
    as_replica = client.fetch_request(topic, 0)
    as_replica.replica.broker_id = 2
    refused("CLUSTER_AUTHORIZATION_FAILED", leader.ask, "fetch", as_replica)
    # Eight may wait, and the ninth is refused.
    other = Connection("%s:%d" % leader.socket.getpeername()[:2])
    request = client.fetch_request(topic, 1, max_wait_ms=15_000)
    for _ in range(8):
        other.send("fetch", request)
    refused("BROKER_OVERLOADED", other.ask, "fetch", request)
    other.close()


def unknown_partition(client, topic):
    asked = pb.FetchPartition(topic_id=topic.topic_id, partition=9, max_bytes=1)
    (one,) = client.leader(topic).ask("fetch", pb.FetchRequest(max_bytes=1, partitions=[asked])).partitions
    raise Refused(one.error)


@check
def list_offsets():
    client = Client(BOOTSTRAP)
    topic = new_topic(client)
    began = int(time.time() * 1000)
    for minute in range(3):
        client.produce(topic, batch_of([b"a"], timestamp=began + 60_000 * minute))
    same(client.offset(topic, pb.EARLIEST), 0)
    same(client.offset(topic, pb.LATEST), 3)
    same(client.offset(topic, pb.TIMESTAMP, timestamp=began + 1), 1)
    same(client.offset(topic, pb.TIMESTAMP, timestamp=began + 900_000), 3)

    def delete_before(offset):
        asked = pb.DeleteRecordsPartition(topic_id=topic.topic_id, before_offset=offset)
        (one,) = client.leader(topic).ask("delete_records", pb.DeleteRecordsRequest(partitions=[asked])).partitions
        if one.HasField("error"):
            raise Refused(one.error)
        return one.log_start_offset

    refused("OFFSET_OUT_OF_RANGE", delete_before, 9)
    same(delete_before(2), 2)
    same(client.offset(topic, pb.EARLIEST), 2)
    refused("OFFSET_OUT_OF_RANGE", client.fetch, topic, 0)


@check
def while_a_broker_is_away():
    """Run by who has stopped the broker that led the topic all-three, and has the only replica of only-three."""
    client = Client(BOOTSTRAP)
    (topic,) = [one for one in client.bootstrap.ask("metadata", pb.MetadataRequest()).topics if one.name == "all-three"]
    deadline = time.monotonic() + 20
    while (len(topic.partitions[0].isr) > 2 or topic.partitions[0].leader_id in (-1, 3)) and time.monotonic() < deadline:
        time.sleep(0.1)
        topic = client.topic("all-three")
    refused("NOT_ENOUGH_REPLICAS", client.produce, topic, batch_of([b"a"]))
    same(client.produce(topic, batch_of([b"a"]), acks=1), 0)
    refused("FENCED_LEADER_EPOCH", client.fetch, topic, 0, leader_epoch_plus_one=topic.partitions[0].leader_epoch)

    def elect(name, unclean):
        one = pb.PartitionName(topic_id=client.topic(name).topic_id, partition=0)
        request = pb.ElectLeadersRequest(partitions=[one], unclean=unclean)
        (elected,) = client.controller().ask("elect_leaders", request).partitions
        raise Refused(elected.error)

    refused("PREFERRED_LEADER_NOT_AVAILABLE", elect, "all-three", False)
    refused("ELIGIBLE_LEADERS_NOT_AVAILABLE", elect, "only-three", True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        print("\n".join(checks))
    elif sys.argv[1:] == ["--errors"]:
        print("\n".join(NAMES.values()))
    else:
        checks[sys.argv[1]]()
        print("\n".join(sorted(met)))
