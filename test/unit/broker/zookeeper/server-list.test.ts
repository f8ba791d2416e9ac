import {
  ConnectStringError,
  parseConnectString,
  pathFault,
  serverName,
  ServerRotation,
} from "../../../../broker/zookeeper/server-list.js";
import type { Random } from "../../../../common/env/time.js";

describe("parseConnectString", () => {
  it("understands hosts with and without ports, IPv6 in brackets, and a chroot", () => {
    expect(parseConnectString("zk1:2182, zk2 ,[::1]:2183/ottla/test")).toEqual({
      servers: [
        { host: "zk1", port: 2182 },
        { host: "zk2", port: 2181 },
        { host: "::1", port: 2183 },
      ],
      chroot: "/ottla/test",
    });
    expect(parseConnectString("localhost:1/").chroot).toBe("");
    expect(parseConnectString("localhost:1/").servers.map(serverName)).toEqual(["localhost:1"]);
    expect(serverName({ host: "::1", port: 2 })).toBe("[::1]:2");
  });

  it.each(["", ",", "/a", "host:0", "host:70000", "host:x", "a b:1", "::1:2181", "host:1//a", "host:1/a/../b"])(
    "refuses %j and says how to write it",
    (connectString) => {
      expect(() => parseConnectString(connectString)).toThrow(ConnectStringError);
      expect(() => parseConnectString(connectString)).toThrow("host:port,host:port");
    },
  );
});

describe("a connect string with a path behind several servers", () => {
  // All behind the first "/" was taken for one path: a single server, and a cluster of its own below a strange node.
  it.each([
    ["zk1:2181/x,zk2:2181/x", "zk1:2181,zk2:2181/x"],
    ["zk1/x, zk2:2182/x ,[::1]:2183/x", "zk1,zk2:2182,[::1]:2183/x"],
    ["zk1:2181/x,zk2:2181", "zk1:2181,zk2:2181/x"],
    ["zk1:2181/x/,zk2:2181/x", "zk1:2181,zk2:2181/x"],
    ["zk1:2181/,zk2:2181/x", "zk1:2181,zk2:2181/x"],
  ])("is refused: %s is written %s", (connectString, right) => {
    expect(() => parseConnectString(connectString)).toThrow(ConnectStringError);
    expect(() => parseConnectString(connectString)).toThrow(`write "${right}"`);
    expect(parseConnectString(right).chroot).toBe("/x");
  });

  it.each(["zk1:2181/x,zk2:2181/y", "zk1:2181/x,,zk2:2181/x", "zk1:2181/x, "])(
    "is refused without a guess when %s does not say what is meant",
    (connectString) => {
      expect(() => parseConnectString(connectString)).toThrow("the path stands behind the last server only");
    },
  );
});

describe("pathFault", () => {
  it("accepts what ZooKeeper accepts", () => {
    for (const path of ["/", "/a", "/a/b-c_d.e", "/...", "/ä/漢"]) expect(pathFault(path)).toBeUndefined();
  });

  it("refuses what ZooKeeper refuses", () => {
    for (const path of ["", "a", "/a/", "//", "/a//b", "/.", "/a/..", "/a\n", "/a\u0000", "/\ue000", "/\ud83d\ude00"]) {
      expect(pathFault(path)).toEqual(expect.any(String));
    }
  });
});

describe("ServerRotation", () => {
  it("begins anywhere and takes every server in turn", () => {
    const servers = ["a", "b", "c"].map((host) => ({ host, port: 1 }));
    const random = { below: () => 2 } as unknown as Random;
    const rotation = new ServerRotation(servers, random);
    expect(Array.from({ length: 5 }, () => rotation.next().host)).toEqual(["c", "a", "b", "c", "a"]);
  });
});
