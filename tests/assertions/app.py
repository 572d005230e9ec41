"""An app that believes nobody but the assertion: by PyJWT, as docs/apps.md has it, and by jwcrypto, which must agree.

argv: the file that docs/apps.md's code will be in, and one that the key set's address will be in; both are there before the first request.
"""
import http.server
import importlib.util
import json
import sys
import threading
import urllib.request

from jwcrypto import jwk, jwt as other

SNIPPET, ADDRESS = sys.argv[1:]
LOCK = threading.Lock()
STATE = {}


def snippet():
    with LOCK:
        if "who" not in STATE:
            spec = importlib.util.spec_from_file_location("snippet", SNIPPET)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            with open(ADDRESS) as file:
                text = urllib.request.urlopen(file.read()).read()
            STATE.update(who=module.who, keys=jwk.JWKSet.from_json(text))
    return STATE["who"], STATE["keys"]


def verified(assertion):
    who, keys = snippet()
    claims = who(assertion)
    again = other.JWT(jwt=assertion, key=keys, algs=["ES256"], check_claims={"iss": "vestibule", "aud": "wiki"})
    if json.loads(again.claims) != claims:
        raise ValueError("two libraries read two things")
    return claims, json.loads(again.header)


class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        try:
            (assertion,) = self.headers.get_all("Vestibule-Jwt-Assertion") or []
            claims, header = verified(assertion)
            told = {"claims": claims, "header": header, "assertion": assertion, "fields": dict(self.headers)}
            status = 200
        except Exception as error:
            status, told = 401, {"error": repr(error)}
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


server = Server(("127.0.0.1", 0), App)
print(server.server_address[1], flush=True)
server.serve_forever()
