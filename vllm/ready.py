"""Say when a server is up, and what it is; give up when its process does."""

import json
import os
import sys
import time
import urllib.request

port, process = sys.argv[1], int(sys.argv[2])
url = f"http://127.0.0.1:{port}"
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def version():
    try:
        return json.load(direct.open(f"{url}/version", timeout=1))["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


if version():
    print(f"Another server answers on {url}: this one will not get the port.")
    sys.exit()
while not (found := version()):
    time.sleep(0.5)
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        sys.exit()
print(f"""
vLLM {found} is up on {url}. Ctrl-C ends it. In other terminals:

  bin/vllm-gateway --backend {url}
  curl -N localhost:9000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{{"model":"tiny","messages":[{{"role":"user","content":"Hello"}}],"stream":true,"max_tokens":50}}'
""")
