"""What the tests share: the servers, named by the environment, and ways to ask
them. Every server here is on the loopback interface."""

import json
import os
import re
import time
import unittest
import urllib.request

import openai

MODEL = "tiny"


def server(name):
    url = os.environ.get(name)
    assert url, f"{name} is not set: run the tests with go test"
    return url


# The backend is the simulator, or a real vLLM.
REAL = bool(os.environ.get("VLLM_URL"))
BACKEND = server("BACKEND_URL")
GATEWAY = server("GATEWAY_URL")
# A gateway whose backend does not listen.
ORPHAN = server("ORPHAN_URL")


def only_simulated(why):
    """Skip a test of what a real vLLM cannot be made to do."""
    return unittest.skipIf(REAL, f"not before a real vLLM: {why}")


no_faults = only_simulated("it does not fail on request")


def client(url, make=openai.OpenAI, **options):
    return make(**{"base_url": f"{url}/v1", "api_key": "none", "max_retries": 0, "timeout": 30, **options})


# What differs from one time to the next, whoever is asked.
FLEETING = {"created", "created_at", "cached_tokens"}


def plain(value):
    """What an SDK's objects say."""
    text = json.dumps(value, default=lambda o: o.to_dict(mode="json", warnings=False))
    return json.loads(text, object_hook=lambda o: {k: v for k, v in o.items() if k not in FLEETING})


# vLLM differs from itself in two ways: it draws some ids by lot, and where the
# events of a real one's stream end is a matter of luck (fold_test.go says why).
# What is comparable has ids numbered in the order in which they come, and a real
# vLLM's chunks put together.
BY_LOT = re.compile(r'"(resp_|msg_|rs_|chatcmpl-tool-|modelperm-)[0-9a-f]{16,32}"')


def comparable(value):
    ids = {}
    text = BY_LOT.sub(lambda m: ids.setdefault(m[0], f'"id {len(ids)}"'), json.dumps(plain(value)))
    return json.loads(text, object_hook=lambda o: {k: folded(v) if REAL and k == "chunks" else v for k, v in o.items()})


def folded(chunks):
    out = []
    for chunk in chunks:
        chunk.pop("sequence_number", None)  # counts the events before
        if out and all(out[-1].get(k) == chunk.get(k) for k in ("id", "type")):
            out[-1] = fold("", out[-1], chunk)
        else:
            out.append(chunk)
    return out


def fold(key, so, new):
    """Put the next chunk's value of a key behind the value so far. Nothing is
    lost: text is put together, lists too, and of other values each that is new
    is kept."""
    if so is None or new is None:
        return new if so is None else so
    if isinstance(so, dict) and isinstance(new, dict):
        return {**so, **{k: fold(k, so.get(k), v) for k, v in new.items()}}
    if isinstance(so, list) and isinstance(new, list):
        for element in new:
            fold_into(so, element)
        return so
    if isinstance(so, str) and isinstance(new, str) and key in ("content", "text", "delta", "arguments"):
        return so + new
    return so if so == new else [so, new]


def fold_into(so, new):
    """Put an element of a list in its place: what has an index is a piece of the
    element with the same index."""
    if isinstance(new, dict) and "index" in new:
        for i, have in enumerate(so):
            if have["index"] == new["index"]:
                so[i] = fold("", have, new)
                return
    so.append(new)


class Case(unittest.TestCase):
    maxDiff = None  # a difference is shown whole

    def same(self, name, ask, make=openai.OpenAI, **options):
        """Ask the backend, then the gateway, and want the same of both. Both get
        the same X-Request-Id, of which the server makes the ids in its answers.
        Gives what the gateway answered."""
        options["default_headers"] = {"X-Request-Id": name}
        direct = ask(client(BACKEND, make, **options))
        through = ask(client(GATEWAY, make, **options))
        self.assertEqual(comparable(through), comparable(direct))
        return through


def unnamed(chunk):
    """vLLM names itself on the last chunk of a stream. Where that is a usage chunk
    that only the gateway asked for, the name goes with it (docs/configuration.md)."""
    if getattr(chunk, "usage", None) is None and "system_fingerprint" in chunk.model_fields_set:
        del chunk.system_fingerprint
    return chunk


def drain(stream):
    """Read a stream to its end, whichever it is."""
    chunks = []
    try:
        for chunk in stream:
            chunks.append(unnamed(chunk))
    except Exception as err:
        return {"chunks": chunks, "error": failure(err)}
    return {"chunks": chunks, "error": None}


def refusal(ask, *args, **more):
    """The error that a request ends with."""
    try:
        ask(*args, **more)
    except Exception as err:
        return failure(err)
    raise AssertionError("the request succeeded")


def failure(err):
    told = {name: getattr(err, name, None) for name in ("status_code", "code", "type", "param")}
    return {"class": type(err).__name__, "api": isinstance(err, openai.APIError), "message": str(err), **told}


def get(url):
    with urllib.request.urlopen(url, timeout=5) as res:
        return res.read().decode()


class faults:
    """Let the simulator fail within a with statement."""

    def __init__(self, **fault):
        self.fault = fault

    def __enter__(self):
        put([self.fault])

    def __exit__(self, *_):
        put([])


def put(faults):
    request = urllib.request.Request(f"{BACKEND}/sim/faults", json.dumps(faults).encode(), method="PUT")
    with urllib.request.urlopen(request, timeout=5):
        pass


def metric(url, name, label=""):
    """The sum of a metric's series that have the label."""
    lines = get(f"{url}/metrics").splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name) and label in line)


def running():
    return metric(BACKEND, "vllm:num_requests_running")


def generated():
    return metric(BACKEND, "vllm:generation_tokens_total")


def cancelled():
    return metric(GATEWAY, "gateway_requests_total", 'outcome="cancelled"')


def until(what, ask, want):
    """Poll for a value, for ten seconds at most."""
    deadline = time.monotonic() + 10
    while (got := ask()) != want:
        assert time.monotonic() < deadline, f"{what} is {got}, not {want}, after 10 s"
        time.sleep(0.005)
