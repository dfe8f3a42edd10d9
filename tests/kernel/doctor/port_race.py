"""Force two connections to get the same source port at the same moment.

nfnetlink_queue holds back the first connection's packet between its translation and its entry into the table, until the
second connection's packet has passed.
"""

HOLD = """
import socket, struct, sys
QUEUE = 7
def attr(kind, body): return struct.pack("=HH", 4 + len(body), kind) + body + bytes(-len(body) % 4)
def message(kind, body):
    head = struct.pack("=IHHIIBBH", 20 + len(body), 3 << 8 | kind, 1, 0, 0, 0, 0, socket.htons(QUEUE))
    return head + body
held = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
held.bind((0, 0))
held.send(message(2, attr(1, struct.pack("!BBH", 1, 0, socket.AF_INET))))  # NFQNL_MSG_CONFIG: NFQNL_CFG_CMD_BIND
held.send(message(2, attr(2, struct.pack("!IB", 0, 1))))  # NFQA_CFG_PARAMS: NFQNL_COPY_META
print("ready", flush=True)
data = held.recv(65536)
while struct.unpack_from("=H", data, 4)[0] != 3 << 8:  # NFQNL_MSG_PACKET
    data = held.recv(65536)
(number,) = struct.unpack_from("!I", data, 24)  # NFQA_PACKET_HDR is its first attribute
print("held", flush=True)
sys.stdin.readline()
held.send(message(1, attr(2, struct.pack("!II", 1, number))))  # NFQNL_MSG_VERDICT: NF_ACCEPT
print("let go", flush=True)
sys.stdin.readline()
"""
"""Hold the first packet that arrives at its queue until a line arrives on stdin."""

CONNECT = """
import select, socket, sys
made = socket.socket()
made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
made.bind(("0.0.0.0", 5555))
made.setblocking(False)
made.connect_ex((sys.argv[1], 7009))
sys.stdin.readline()
select.select([], [made], [], 1.5)
try:
    made.getpeername()
except OSError:
    print("lost")
else:
    print("connected")
"""
"""Connect, and report the result some time after a line arrives on stdin.

A repeated SYN is held back like the first one and never released. So the first one decides, however late the line
arrives on a busy machine.
"""

SERVE = """
import socket
server = socket.create_server(("0.0.0.0", 7009))
print("ready", flush=True)
while True:
    server.accept()[0].close()
"""
