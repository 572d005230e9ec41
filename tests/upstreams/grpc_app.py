"""An app that speaks gRPC, without generated code: messages are bytes. Prints its port; with a second one that restarts its connections."""

import json
import sys
import threading
import time
from concurrent import futures

import grpc

cancelled = []
lock = threading.Lock()


def unary(request, context):
    seen = {key: value if isinstance(value, str) else value.hex() for key, value in context.invocation_metadata()}
    context.send_initial_metadata((("x-initial", "early"),))
    context.set_trailing_metadata((("x-trailing", "late"), ("x-trailing-bin", b"\x00\xff")))
    return json.dumps(seen).encode() if request == b"metadata?" else request


def fail(request, context):
    context.set_trailing_metadata((("grpc-status-details-bin", b"\x08\x09details"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today: ä")


def collect(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def count(request, context):
    number, pause = (float(part) for part in request.split())
    for nth in range(int(number)):
        time.sleep(pause)  # the app's own pace
        yield b"%d" % nth


def large(request, context):
    for _ in range(int(request)):
        yield b"x" * 1_000_000


def echo(requests, context):
    for request in requests:
        yield b"echo " + request


def hang(request, context):
    name = request.decode()
    ended = threading.Event()

    def over():
        with lock:
            cancelled.append([name, context.time_remaining() is not None])
        ended.set()

    context.add_callback(over)
    ended.wait(30)
    return b""


def told(request, context):
    with lock:
        return json.dumps(cancelled).encode()


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Collect": grpc.stream_unary_rpc_method_handler(collect),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Large": grpc.unary_stream_rpc_method_handler(large),
    "Echo": grpc.stream_stream_rpc_method_handler(echo),
    "Hang": grpc.unary_unary_rpc_method_handler(hang),
    "Told": grpc.unary_unary_rpc_method_handler(told),
}


def serve(options, certificate):
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=128),
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), *options],
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", METHODS),))
    if certificate:
        port = server.add_secure_port("127.0.0.1:0", certificate)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print("port", port, flush=True)
    return server


cert, key = (open(name, "rb").read() for name in sys.argv[1:3])
servers = [
    serve([], None),
    serve([], grpc.ssl_server_credentials([(key, cert)])),
    # Each connection gets its GOAWAY after a moment, streams on it may finish.
    serve([("grpc.max_connection_age_ms", 300), ("grpc.max_connection_age_grace_ms", 30_000)], None),
    serve([("grpc.max_concurrent_streams", 10)], None),
]
sys.stdin.read()
