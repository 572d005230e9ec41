"""What docs/apps.md's code makes of assertions that were tampered with. argv: its file. Standard input: an assertion that is good, and one of another key."""
import base64
import json
import sys

sys.path.insert(0, sys.argv[1])
import snippet

good, foreign = sys.stdin.read().split()
head, claims, signature = good.split(".")


def decoded(part):
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def encoded(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def says(change):
    changed = decoded(claims)
    change(changed)
    return ".".join([head, encoded(changed), signature])


flipped = bytearray(base64.urlsafe_b64decode(signature + "=="))
flipped[10] ^= 1
flipped = base64.urlsafe_b64encode(bytes(flipped)).rstrip(b"=").decode()

assert snippet.who(good)["aud"] == "wiki"
refused = 0
for name, text in {
    "another device": says(lambda c: c.update(sub="boss")),
    "another tier": says(lambda c: c.update(acr="trusted")),
    "a longer life": says(lambda c: c.update(exp=c["exp"] + 3600)),
    "another app": says(lambda c: c.update(aud="payroll")),
    "a signature that differs by a bit": ".".join([head, claims, flipped]),
    "no signature": ".".join([head, claims, ""]),
    "no algorithm": ".".join([encoded({**decoded(head), "alg": "none"}), claims, ""]),
    "the public key as a secret": ".".join([encoded({**decoded(head), "alg": "HS256"}), claims, signature]),
    "a key that nobody published": ".".join([encoded({**decoded(head), "kid": "x"}), claims, signature]),
    "another proxy's key": foreign,
    "nothing": "",
}.items():
    try:
        snippet.who(text)
    except Exception:
        refused += 1
    else:
        sys.exit(f"believed: {name}")
print(refused)
