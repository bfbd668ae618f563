"""pyzmq's monitored queue as a process; prints its ports. With --swap both sides are ROUTERs, whose identities change places."""

import sys

import zmq
from zmq.devices import monitored_queue


def bound(context, kind):
    socket = context.socket(kind)
    socket.set_hwm(0)
    return socket, socket.bind_to_random_port("tcp://127.0.0.1")


context = zmq.Context()
front, front_port = bound(context, zmq.ROUTER)
back, back_port = bound(context, zmq.ROUTER if "--swap" in sys.argv else zmq.DEALER)
side, side_port = bound(context, zmq.PUB)
print(front_port, back_port, side_port, flush=True)
monitored_queue(front, back, side, b"in", b"out")
