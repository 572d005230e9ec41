"""A client that speaks gRPC. Asks every app through the proxy; prints `ok CASE` for what is as it should be."""

import json
import sys
import threading
import time
import traceback

import grpc

target, ca = sys.argv[1], open(sys.argv[2], "rb").read()


def channel(app):
    options = [
        ("grpc.ssl_target_name_override", app + ".corp.example"),
        ("grpc.default_authority", app + ".corp.example"),
        ("grpc.max_receive_message_length", -1),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
    ]
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(ca), options)


def case(name, run):
    try:
        run()
        print("ok", name, flush=True)
    except BaseException:
        print("failed", name, flush=True)
        traceback.print_exc(file=sys.stdout)


def failure(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("it did not fail")


def kinds(app):
    with channel(app) as c:
        answer, call = c.unary_unary("/t.T/Unary").with_call(b"metadata?", metadata=(("x-mine", "1"), ("x-mine-bin", b"\x01\xfe")))
        seen = json.loads(answer)
        assert seen["x-mine"] == "1" and seen["x-mine-bin"] == "01fe", seen
        assert seen["vestibule-device-class"], seen
        assert dict(call.initial_metadata())["x-initial"] == "early", call.initial_metadata()
        trailing = dict(call.trailing_metadata())
        assert trailing["x-trailing"] == "late" and trailing["x-trailing-bin"] == b"\x00\xff", trailing
        assert c.unary_unary("/t.T/Unary")(b"") == b""
        assert c.stream_unary("/t.T/Collect")(iter([b"x" * 10] * 50)) == b"500"
        assert c.stream_unary("/t.T/Collect")(iter([])) == b"0"
        assert list(c.unary_stream("/t.T/Count")(b"5 0")) == [b"0", b"1", b"2", b"3", b"4"]
        assert list(c.unary_stream("/t.T/Count")(b"0 0")) == []
        # One message after the other, each only when the one before has come back.
        ready, sent = threading.Semaphore(1), []

        def talk():
            for nth in range(20):
                ready.acquire()
                sent.append(nth)
                yield b"%d" % nth

        for nth, answer in enumerate(c.stream_stream("/t.T/Echo")(talk())):
            assert answer == b"echo %d" % nth and len(sent) == nth + 1
            ready.release()


def statuses(app):
    with channel(app) as c:
        error = failure(lambda: c.unary_unary("/t.T/Fail")(b""))
        assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not today: ä"), error
        assert dict(error.trailing_metadata())["grpc-status-details-bin"] == b"\x08\x09details"
        error = failure(lambda: c.unary_unary("/t.T/Nothing")(b""))
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error


def told(c, name):
    end = time.time() + 15
    while time.time() < end:
        for one in json.loads(c.unary_unary("/t.T/Told")(b"")):
            if one[0] == name:
                return one
        time.sleep(0.02)  # between two looks
    raise AssertionError(name + ": the app never heard of it")


def deadlines(app):
    with channel(app) as c:
        error = failure(lambda: c.unary_unary("/t.T/Hang")(b"deadline " + app.encode(), timeout=0.3))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
        assert told(c, "deadline " + app) == ["deadline " + app, True], "the app knew the deadline"


def cancels(app):
    with channel(app) as c:
        call = c.unary_unary("/t.T/Hang").future(b"cancel " + app.encode())
        time.sleep(0.1)
        call.cancel()
        told(c, "cancel " + app)
        stream = c.stream_stream("/t.T/Echo")
        gate = threading.Event()

        def talk():
            yield b"one"
            gate.wait(10)

        call = stream(talk())
        assert next(call) == b"echo one"
        call.cancel()
        assert failure(lambda: next(call)).code() == grpc.StatusCode.CANCELLED
        gate.set()
        assert c.unary_unary("/t.T/Unary")(b"on") == b"on"


def large(app):
    with channel(app) as c:
        message = bytes(range(256)) * 32_768  # 8 MiB
        assert c.unary_unary("/t.T/Unary")(message) == message
        answers = c.unary_stream("/t.T/Large")(b"24")
        got = 0
        for nth, answer in enumerate(answers):
            if nth == 0:
                # Who does not read holds up no other.
                assert c.unary_unary("/t.T/Unary")(b"meanwhile") == b"meanwhile"
            got += len(answer)
        assert got == 24_000_000, got
        assert c.stream_unary("/t.T/Collect")(b"x" * 100_000 for _ in range(100)) == b"10000000"


def many(app):
    with channel(app) as c:
        results, streams = [], 100
        barrier = threading.Barrier(streams, timeout=60)

        def one(nth):
            def talk():
                yield b"%d" % nth
                yield b"last"

            answers = c.stream_stream("/t.T/Echo")(talk())
            first = next(answers)
            barrier.wait()  # all are open at once
            results.append((first, list(answers)) == (b"echo %d" % nth, [b"echo last"]))

        threads = [threading.Thread(target=one, args=(nth,)) for nth in range(streams)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert results == [True] * streams, (len(results), results.count(True))


def restarts(app):
    """Every connection of the app is told to go after 0.3 s; nothing of it is lost."""
    with channel(app) as c:
        slow = c.unary_stream("/t.T/Count")(b"12 0.1")
        asked = 0
        for nth, answer in enumerate(slow):
            assert answer == b"%d" % nth
            for _ in range(30):
                assert c.unary_unary("/t.T/Unary")(b"x") == b"x"
                asked += 1
        assert asked == 360


def refused():
    with channel("down") as c:
        error = failure(lambda: c.unary_unary("/t.T/Unary")(b""))
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error
    with channel("blocked") as c:
        error = failure(lambda: c.unary_unary("/t.T/Unary")(b""))
        assert error.code() == grpc.StatusCode.PERMISSION_DENIED, error


for app in ["plain", "tls"]:
    for run in [kinds, statuses, deadlines, cancels, large, many]:
        case(run.__name__ + " " + app, lambda: run(app))
case("many few", lambda: many("few"))
case("restarts aging", lambda: restarts("aging"))
case("refused", refused)
