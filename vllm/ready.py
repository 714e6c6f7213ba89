"""Say when a server is up, and what it is; give up when its process does."""

import json
import os
import sys
import time
import urllib.request

url, process = sys.argv[1], int(sys.argv[2])
while True:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        sys.exit()
    try:
        version = json.load(urllib.request.urlopen(url + "/version", timeout=1))["version"]
        break
    except OSError:
        time.sleep(0.5)
print(f"""
vLLM {version} is up on {url}. Ctrl-C ends it. In other terminals:

  bin/vllm-gateway
  curl -N localhost:9000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{{"model":"tiny","messages":[{{"role":"user","content":"Hello"}}],"stream":true,"max_tokens":50}}'
""")
